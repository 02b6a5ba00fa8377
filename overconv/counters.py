"""Counters of what a call dispatches: products, elementwise work, operations, copies, bytes.

They look at the operations that really run, on real tensors or on ones without values, and know
nothing of layers and their formulas. All counts are integers, equal in every run.

Products are counted by the formulas of ``torch.utils.flop_counter`` with what these lack or have
wrong mended (:data:`CORRECTIONS`). What torch keeps private is used here and in valueless.py alone.
"""

import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

from overconv.products import CORRECTIONS

aten = torch.ops.aten

# What moves values from one tensor into another and computes nothing.
_COPIES = frozenset(
    (
        *("clone", "copy", "copy_", "_to_copy", "_copy_from", "repeat"),
        *("expand_copy", "view_copy", "_reshape_copy"),
    )
)
# What makes tensors without reading values, or moves none.
_MAKERS = frozenset(
    (
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "zeros"),
        *("zeros_like", "new_zeros", "ones", "ones_like", "new_ones", "full", "full_like"),
        *("new_full", "fill", "fill_", "zero_", "arange", "linspace", "eye", "scalar_tensor"),
        *("lift", "lift_fresh", "rand", "rand_like", "randn", "randn_like", "bernoulli_"),
        *("uniform_", "normal_", "randperm", "resize_", "set_", "_unsafe_view", "as_strided_"),
        *("_local_scalar_dense", "is_same_size"),
    )
)
# Of what is pointwise: additions, which are free of multiplications unless scaled, and
# multiplications, which are ones by a number too.
_ADD = frozenset(("add", "add_", "sub", "sub_", "rsub"))
_MULTIPLY = frozenset(("mul", "mul_", "div", "div_"))
_POOL = frozenset(("mean", "_adaptive_avg_pool2d", "avg_pool2d"))

#: In the place of a module's name: work outside of the model.
OUTSIDE = "(outside)"


@dataclass
class Work:
    """What was dispatched, by the name of the operator in ``torch.ops.aten``.

    Attributes:
        products: Multiply-accumulates of products of matrices and convolutions.
        rows: How many of these are in batches of products of a single row, which is how a sum of
            tensors with weights may be written.
        multiplications: Values put out by multiplications of tensors of three axes or more, such
            as images and kernels; by divisions and by whatever else joins two tensors and is no
            addition; and values read by products along an axis.
        vectors: The same of tensors of fewer axes, but not by numbers: gates, flattened kernels.
        pooled: Values read by means of images.
        elementwise: Values of the largest tensor of each operation that torch tags as pointwise or
            as a reduction, multiplications included.
        unseen: The same of operations that have no tag and no formula: normalisations and
            pooling, but also whatever multiplies unseen.
        copies: How many operations do nothing but copy.
        operations: How many operations there are, views included.
    """

    products: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    multiplications: dict[str, int] = field(default_factory=dict)
    vectors: int = 0
    pooled: int = 0
    elementwise: dict[str, int] = field(default_factory=dict)
    unseen: dict[str, int] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    operations: dict[str, int] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all products."""
        return sum(self.products.values())

    def __add__(self, other: "Work") -> "Work":
        def add(one: Any, two: Any) -> Any:
            if isinstance(one, int):
                return one + two
            return dict(sorted((Counter(one) + Counter(two)).items()))

        return Work(**{n: add(getattr(self, n), getattr(other, n)) for n in vars(self)})


@dataclass(frozen=True)
class Counts:
    """What a call dispatched.

    Attributes:
        forward, backward: The work of either pass; recomputing in a backward pass is part of it.
        peak_bytes: The most bytes alive at once, of all tensors that the call reads or makes, the
            parameters and inputs that it reads included. What a kernel allocates for itself and
            frees again is not seen.
        modules: The work of the forward pass by the name of the innermost module. The whole model
            has an empty name, and what runs outside of it :data:`OUTSIDE`.
    """

    forward: Work
    backward: Work
    peak_bytes: int
    modules: dict[str, Work]

    @property
    def operations(self) -> int:
        """How many operations both passes dispatch."""
        return sum((self.forward + self.backward).operations.values())

    @property
    def copies(self) -> int:
        """How many operations of both passes do nothing but copy."""
        return sum((self.forward + self.backward).copies.values())


def count(call: Callable[[], object], model: nn.Module | None = None) -> Counts:
    """Run a call and count what it dispatches.

    Args:
        call: Runs a forward pass, and a backward pass behind it if that is wanted; eagerly, as
            what is compiled dispatches nothing.
        model: Has the modules to which the work of the forward pass is attributed; None: no module
            is asked for.

    Example:
        >>> conv = nn.Conv2d(3, 8, 3, padding=1)
        >>> counts = count(lambda: conv(torch.zeros(2, 3, 5, 5)).sum().backward())
        >>> counts.forward.products, counts.backward.products  # the image needs no gradient
        ({'convolution': 10800}, {'convolution_backward': 10800})
    """
    mode = _Counter()
    collects = gc.isenabled()
    gc.disable()
    try:
        with mode.attributing(model), mode:
            call()
    finally:
        if collects:
            gc.enable()
    # a sum has its names sorted
    modules = {name: work + Work() for name, work in sorted(mode.forward.items())}
    total = sum(modules.values(), Work())
    return Counts(total, mode.backward + Work(), mode.memory.peak, modules)


class _Memory:
    """Bytes of the storages that are alive, and the most there were."""

    def __init__(self) -> None:
        self.alive: dict[int, weakref.ref[Any]] = {}
        self.now = self.peak = 0

    def read(self, tensor: Tensor) -> None:
        """What is not known was there before the call, and all the time."""
        size = self._track(tensor)
        self.now += size
        self.peak += size

    def made(self, tensor: Tensor) -> None:
        self.now += self._track(tensor)
        self.peak = max(self.peak, self.now)

    def _track(self, tensor: Tensor) -> int:
        """Bytes of a storage that is not known yet; it is from now on until it dies."""
        storage = tensor.untyped_storage()
        key = id(storage)  # torch keeps the object as long as the storage lives
        if key in self.alive:
            return 0
        size = storage.nbytes()

        def died(reference: object) -> None:
            del self.alive[key]
            self.now -= size

        self.alive[key] = weakref.ref(storage, died)
        return size


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.memory = _Memory()
        self.forward: dict[str, Work] = {}
        self.backward = Work()
        self.inside: list[str] = [OUTSIDE]
        corrected = {key: flop_counter.shape_wrapper(f) for key, f in CORRECTIONS.items()}
        self.formulas = {**flop_counter.flop_registry, **corrected}

    @contextmanager
    def attributing(self, model: nn.Module | None) -> Iterator[None]:
        """Know which module of ``model`` is running."""
        names = {} if model is None else {part: name for name, part in model.named_modules()}

        def enter(module: nn.Module, inputs: Any) -> None:
            if module in names:
                self.inside.append(names[module])

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            if module in names:
                self.inside.pop()

        handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # what a tensor without values answers where it lives
            return func(*args, **kwargs)
        if func.overloadpacket not in self.formulas:
            with self:  # under inference_mode, what is composed of other operations comes whole
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        read = _tensors((args, kwargs))
        for tensor in read:
            self.memory.read(tensor)
        out = func(*args, **kwargs)
        made = _tensors(out)
        for tensor in made:
            self.memory.made(tensor)
        backward = torch._C._current_graph_task_id() != -1
        work = self.backward if backward else self.forward.setdefault(self.inside[-1], Work())
        self._count(work, func, args, kwargs, out, read, made)
        return out

    def _count(
        self,
        work: Work,
        func: Any,
        args: Any,
        kwargs: Any,
        out: Any,
        read: list[Tensor],
        made: list[Tensor],
    ) -> None:
        packet = func.overloadpacket
        name = str(packet).removeprefix("aten.")
        _add(work.operations, name, 1)
        if packet in self.formulas:
            macs, odd = divmod(self.formulas[packet](*args, **kwargs, out_val=out), 2)
            assert not odd, f"{name} has no whole number of multiply-accumulates"
            _add(work.products, name, macs)
            if packet is aten.bmm and args[0].shape[1] == 1:
                work.rows += macs
            return
        if name in _COPIES:
            _add(work.copies, name, 1)
        if name in _COPIES or name in _MAKERS or func.is_view:
            return
        values = max((tensor.numel() for tensor in [*read, *made]), default=0)
        pointwise = torch.Tag.pointwise in func.tags
        if pointwise or torch.Tag.reduction in func.tags:
            _add(work.elementwise, name, values)
        else:
            _add(work.unseen, name, values)
        if name in _POOL and read[0].dim() >= 3:
            work.pooled += read[0].numel()
        if name == "prod":
            _add(work.multiplications, name, read[0].numel() - made[0].numel())
        if pointwise and made:
            joined = len(read) > 1 and name not in _ADD
            scaled = name in _MULTIPLY or (name in _ADD and kwargs.get("alpha", 1) != 1)
            if made[0].dim() < 3:
                work.vectors += joined * made[0].numel()
            elif joined or scaled:
                _add(work.multiplications, name, made[0].numel())


def _add(counts: dict[str, int], name: str, more: int) -> None:
    counts[name] = counts.get(name, 0) + more


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors of nested lists, tuples and dictionaries."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        return []
    return [tensor for part in tree for tensor in _tensors(part)]
