"""Who calls a module of a network, and who sees what it gives: graphs by :mod:`torch.fx`.

A graph shows one call of a network with tensors that have no values. What it does not show, such
as hooks, conditions on other arguments, or a part that cannot be traced, is looked for here, so
that what a :class:`CallGraph` says of a module holds for each call of the network as it is
configured.
"""

import builtins
import gc
import inspect
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

IsLeaf = Callable[[nn.Module], bool]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# What may be asked of a tensor without reading its values.
_VALUELESS = [
    *(getattr(Tensor, name).__get__ for name in ("device", "dtype", "layout", "ndim", "shape")),
    *(getattr(Tensor, name).__get__ for name in ("is_cuda", "is_meta", "requires_grad")),
    *(Tensor.dim, Tensor.is_floating_point, Tensor.numel, Tensor.size, Tensor.stride),
]
_MOST_OPTIONS = 4  # optional arguments of a network, all combinations of which are traced


class Untraceable(Exception):
    """A network has no graph that could be trusted; says why."""


def count_hooks(*modules: nn.Module) -> int:
    """Number of hooks on calls of ``modules``; those on calls of their submodules do not count."""
    return sum(len(getattr(module, hooks)) for module in modules for hooks in _HOOKS)


def is_patched(module: nn.Module) -> bool:
    """Whether the instance has something of its own in the place of a method of its class."""
    return any(callable(getattr(type(module), name, None)) for name in vars(module))


def call_graphs(model: nn.Module, is_leaf: IsLeaf) -> list["CallGraph"]:
    """The graphs of ``model`` in its present mode, one for each combination of its options.

    A graph shows one way through a condition such as ``mask is None``, so each optional argument
    of ``forward`` is once its default and once something else.

    Args:
        model: Stays as it is.
        is_leaf: Modules that are not looked into, beside those of torch.

    Raises:
        Untraceable: The network's own ``forward`` cannot be traced, or has too many options.
    """
    return [_trace(model, is_leaf, arguments) for arguments in _combinations(model)]


class CallGraph:
    """What one trace of a network showed.

    Attributes:
        model: The copy of the network that was traced, under the same names.
    """

    def __init__(
        self,
        model: nn.Module,
        nodes: list[fx.Node],
        read: set[int],
        unseen: dict[nn.Module, str],
        opaque: dict[str, str],
    ) -> None:
        self.model = model
        self._calls = [node for node in nodes if node.op == "call_module"]
        self._count = Counter(map(self.module, self._calls))
        self._kept = {thing.node for thing in _held(model) if isinstance(thing, fx.Proxy)}
        # Why the graph may not show all uses of a module; the last reason found is kept.
        self._unseen = dict(unseen)
        for module in self._count:
            others = _reached(module) - {module}
            self._hide(
                others, f"is in reach of a {type(module).__name__}, which is not looked into"
            )
        for name, reason in opaque.items():
            self._hide(_reached(model.get_submodule(name)), reason)
        read = set(read)
        for node in nodes:
            if node.op == "get_attr":
                value = _attribute(model, str(node.target))
                read.add(id(value))
                if isinstance(value, nn.Module):  # given to a function
                    self._hide(_reached(value), f"is in reach of {node.target!r}, which is read")
        for module in model.modules():
            own = (*module._parameters.values(), *module._buffers.values())
            if any(id(value) in read for value in own if value is not None):
                self._hide([module], "is not only called, its values are read as well")

    def _hide(self, modules: Iterable[nn.Module], reason: str) -> None:
        self._unseen |= dict.fromkeys(modules, reason)

    def num_users(self, node: fx.Node) -> int:
        """How many see what a node gives; one more if it is kept in an attribute."""
        return len(node.users) + (node in self._kept)

    def module(self, node: fx.Node) -> nn.Module:
        """The module that a node calls."""
        return self.model.get_submodule(str(node.target))

    def only_call(self, module: nn.Module) -> fx.Node:
        """The node that is the only use of ``module``, which is one of :attr:`model`.

        Raises:
            Untraceable: It is called never, or more than once, or may be used in ways that the
                graph does not show.
        """
        if module in self._unseen:
            raise Untraceable(self._unseen[module])
        if self._count[module] != 1:
            times = f"called {self._count[module]} times" if self._count[module] else "never called"
            raise Untraceable(f"is {times}")
        return next(node for node in self._calls if self.module(node) is module)


class _Tracer(fx.Tracer):
    """Takes calls of leaves for single nodes, and notes what fails.

    Attributes:
        failed: Name of the innermost module whose forward raised.
    """

    def __init__(self, is_leaf: IsLeaf, opaque: Iterable[str]) -> None:
        super().__init__()
        self.is_leaf, self.opaque = is_leaf, set(opaque)
        self.failed = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_leaf = self.is_leaf(m) or module_qualified_name in self.opaque
        return is_leaf or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise

    def gives_tensor(self, node: fx.Node) -> bool:
        """Whether the node certainly stands for a tensor; the network's inputs are taken so."""
        if node.op != "call_module" or str(node.target) in self.opaque:
            return node.op == "placeholder"
        module = self.root.get_submodule(str(node.target))
        gives_more = isinstance(module, nn.RNNBase | nn.MultiheadAttention)
        return not gives_more and not getattr(module, "return_indices", False)


@contextmanager
def _true_types(tracer: _Tracer) -> Iterator[None]:
    """While it traces, ``isinstance`` answers as it would for the values that the nodes stand for.

    By itself it says that they are no tensors, so that the trace would go another way than a run.
    It raises where the type is not known. The checks of torch itself are left alone.
    """
    of_python = builtins.isinstance

    def of_value(thing: Any, kinds: Any) -> bool:
        asker = sys._getframe(1).f_globals.get("__name__", "")
        if not of_python(thing, fx.Proxy) or asker == __name__ or asker.startswith("torch."):
            return of_python(thing, kinds)
        if not tracer.gives_tensor(thing.node):
            raise TypeError("what is computed depends on the type of a value")
        return issubclass(Tensor, kinds)

    builtins.isinstance = of_value
    try:
        yield
    finally:
        builtins.isinstance = of_python


class _Reads(TorchFunctionMode):
    """Notes the tensors, by identity, whose values are computed with while it is entered.

    In a trace those are tensors that are there already: what is done with them is no node.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read: set[int] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _VALUELESS:
            leaves = tree_leaves((args, kwargs))
            self.read |= {id(value) for value in leaves if isinstance(value, Tensor)}
        return func(*args, **(kwargs or {}))


def _combinations(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Values for the optional arguments of ``model``; one that is left out is traced."""
    if is_patched(model):
        raise Untraceable("the network has an attribute in the place of a method")
    defaults: dict[str, Any] = {}
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise Untraceable(f"the network's forward takes any number of arguments, {parameter}")
        if parameter.default is not parameter.empty:
            defaults[name] = parameter.default
            if not isinstance(parameter.default, bool | int | float | str | None):
                raise Untraceable(f"the network's forward has the optional argument {parameter}")
    if len(defaults) > _MOST_OPTIONS:
        raise Untraceable(f"the network's forward has {len(defaults)} optional arguments")
    for as_defaults in itertools.product((True, False), repeat=len(defaults)):
        arguments = {}
        for (name, default), as_default in zip(defaults.items(), as_defaults, strict=True):
            if as_default or isinstance(default, bool):
                arguments[name] = default if as_default else not default
        yield arguments


def _trace(model: nn.Module, is_leaf: IsLeaf, arguments: dict[str, Any]) -> CallGraph:
    """Trace a copy, since a trace leaves its marks; what raises becomes a node, from inside out."""
    opaque: dict[str, str] = {}
    while True:
        copy = deepcopy(model)
        unseen = _without_hooks(copy)
        tracer = _Tracer(is_leaf, opaque)
        try:
            with torch.random.fork_rng(devices=[]), _true_types(tracer), _Reads() as reads:
                nodes = list(tracer.trace(copy, dict(arguments)).nodes)
        except Exception as error:  # whatever a forward pass may raise when it meets no tensors
            message = str(error).partition("\n")[0].partition(". ")[0]
            if not tracer.failed or tracer.failed in opaque:
                given = f" with {arguments}" if arguments else ""
                raise Untraceable(f"torch.fx cannot trace the network{given}: {message}") from error
            opaque[tracer.failed] = (
                f"is in reach of {tracer.failed!r}, which torch.fx cannot trace: {message}"
            )
        else:
            return CallGraph(copy, nodes, reads.read, unseen, opaque)


def _without_hooks(copy: nn.Module) -> dict[nn.Module, str]:
    """Remove all hooks, which should see no trace; those that they may concern, with the reason.

    What a hook sees goes into its module, or comes out: if the module is not the whole network,
    that may be the output of a convolution inside, or the input of a norm.
    """
    concerned: dict[nn.Module, str] = {}
    for name, module in copy.named_modules():
        if name and count_hooks(module):
            concerned |= dict.fromkeys(_reached(module), f"is in reach of hooks on {name!r}")
    for module in copy.modules():
        for hooks in _HOOKS:
            getattr(module, hooks).clear()
    return concerned


def _attribute(model: nn.Module, target: str) -> Any:
    """What a ``get_attr`` node refers to."""
    owner, _, name = target.rpartition(".")
    return getattr(model.get_submodule(owner), name)


def _reached(start: nn.Module) -> set[nn.Module]:
    """All modules that ``start`` can get at by attributes, its own and whatever else it holds."""
    return {thing for thing in _held(start) if isinstance(thing, nn.Module)}


def _held(start: nn.Module) -> Iterator[Any]:
    """What ``start`` can get at by attributes, down to the attributes of what it holds.

    Functions and weak references are passed over: they are not copied with a network, so that what
    they can get at is none of its copy's.
    """
    passed = type | ModuleType | FunctionType | Tensor | str | int | float
    seen: dict[int, Any] = {}  # keeps what it has seen, so that no identity is used again
    todo: list[Any] = [start]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, passed):
            continue
        seen[id(thing)] = thing
        yield thing
        if not isinstance(thing, fx.Proxy):  # which holds all of the trace
            todo += gc.get_referents(thing)
