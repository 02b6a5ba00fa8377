"""What a layer has to survive on its way into use, one function each.

A check takes a variant and raises an AssertionError, or what torch raises, where the layer does not
survive. Networks are checked by the same functions: ``Network(variant)`` is a variant too.
"""

import copy
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import gradgradcheck
from torch.func import functional_call
from torch.testing import assert_close

from benchmark.traits import composes_in_training
from benchmark.variants import Variant, randomise
from overconv.surgery import to_inference

ANY_BATCH = ({0: torch.export.Dim("batch", min=1, max=64)},)


class Subject(Protocol):
    """What is checked: it can be built, always the same, and has images to run on."""

    def build(self, *, device: Any = None, dtype: Any = None) -> Any: ...

    def images(self, batch: int = 3, size: tuple[int, int] = (6, 5), **more: Any) -> Tensor: ...


@dataclass(frozen=True)
class Network:
    """A small network around two layers of a variant: as it is trained, or deployed."""

    variant: Variant
    deployed: bool = False

    def __str__(self) -> str:
        return f"{'deployed ' if self.deployed else ''}network of {self.variant}"

    def build(self, *, device: Any = None, dtype: Any = None) -> nn.Module:
        factory = {"device": device, "dtype": dtype}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            stem, norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
            first = self.variant.build(4, **factory)
            width = first.out_channels
            second = self.variant.build(width, **factory)
            around = [
                randomise(module.to(**factory))
                for module in (
                    stem,
                    norm,
                    nn.BatchNorm2d(width),
                    nn.Linear(second.out_channels, 3),
                )
            ]
        stem, norm, behind, head = around
        pool = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        network = nn.Sequential(
            stem, norm, nn.ReLU(), first, behind, nn.ReLU(), second, *pool, head
        )
        return to_inference(network) if self.deployed else network

    def images(self, batch: int = 3, size: tuple[int, int] = (8, 7), **more: Any) -> Tensor:
        return torch.randn(batch, 4, *size, **more)


_modes: dict[str, tuple[bool, ...]] = {}


def modes(subject: Subject) -> tuple[bool, ...]:
    """``train()`` and ``eval()``, as far as there are both: what is deployed is not trained."""
    if str(subject) not in _modes:
        module = subject.build()
        both = module.training and not composes_in_training(module)
        _modes[str(subject)] = (True, False) if both else (False,)
    return _modes[str(subject)]


def run(module: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Output, and gradients of a functional of it, by the names of the parameters."""
    module.zero_grad()
    y = module(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device)
    (y * weights.view_as(y)).sum().backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    missing = {name for name, _ in module.named_parameters()} - set(gradients)
    # in eval() a gate may be a constant
    assert not module.training or not missing, f"{sorted(missing)} gets no gradient"
    return y.detach(), gradients


def fresh(subject: Subject, **more: Any) -> Iterator[tuple[Any, Tensor]]:
    """A module in each mode that it has, and images."""
    for mode in modes(subject):
        yield subject.build(**more).train(mode), subject.images(**more)


# Programs.


def compiles(subject: Subject, backend: str = "aot_eager") -> None:
    for module, x in fresh(subject):
        torch.compiler.reset()  # or what was compiled before counts as so many recompilations
        compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend=backend)
        expected, ours = run(module, x), run(compiled, x)
        tolerance = {"rtol": 1e-4, "atol": 1e-4}
        assert_close(ours[0], expected[0], **tolerance)
        names = [name.removeprefix("_orig_mod.") for name in ours[1]]
        assert_close(dict(zip(names, ours[1].values(), strict=True)), expected[1], **tolerance)
        for buffer, other in zip(compiled.buffers(), module.buffers(), strict=True):
            assert_close(buffer, other)
    torch.compiler.reset()


def compiles_to_machine_code(subject: Subject) -> None:
    compiles(subject, "inductor")


def exports(subject: Subject) -> None:
    module = subject.build().eval()
    program = torch.export.export(module, (subject.images(),), dynamic_shapes=ANY_BATCH).module()
    for batch in (1, 2, 7):
        x = subject.images(batch)
        assert_close(program(x), module(x))


def exports_to_onnx(subject: Subject) -> None:
    _onnx(subject, ANY_BATCH, (1, 3, 7))


def exports_to_onnx_for_one_batch_size(subject: Subject) -> None:
    _onnx(subject, None, (3,))


def _onnx(subject: Subject, shapes: Any, batches: tuple[int, ...]) -> None:
    module = subject.build().eval()
    example = subject.images(batches[-1])
    program = torch.onnx.export(
        module, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False
    )
    for batch in batches:
        x = subject.images(batch)
        with torch.no_grad():
            assert_close(program(x)[0], module(x), rtol=1e-4, atol=1e-4)  # by onnxruntime


# Precision.


def autocasts(subject: Subject) -> None:
    for module, x in fresh(subject):
        expected, reference = run(copy.deepcopy(module), x)
        with torch.autocast("cpu", torch.bfloat16):
            y, gradients = run(module, x)
        assert y.dtype == torch.bfloat16, f"the output is {y.dtype}"
        assert {g.dtype for g in gradients.values()} == {torch.float32}
        _close_to(y, expected, 0.03)
        _close_to(_flat(gradients), _flat(reference), 0.2)


def float16(subject: Subject) -> None:
    _in_precision(subject, torch.float16, 0.01)


def bfloat16(subject: Subject) -> None:
    _in_precision(subject, torch.bfloat16, 0.06)


def float64(subject: Subject) -> None:
    """In double precision throughout: a difference too small for any other is seen."""
    _in_precision(subject, torch.float64, 0)
    module, step = subject.build(dtype=torch.float64).eval(), 1e-6
    x, direction = (subject.images(dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        difference = (module(x + step * direction) - module(x - step * direction)) / (2 * step)
    _, slope = torch.autograd.functional.jvp(module, x, direction)
    _close_to(difference, slope, 1e-5)


def _in_precision(subject: Subject, dtype: torch.dtype, tolerance: float) -> None:
    """Built in a precision, or moved to it: the same, and close to double precision."""
    for moved, x in fresh(subject):
        module = copy.deepcopy(moved).to(dtype)
        built = subject.build(dtype=dtype)
        floats = [v for v in built.state_dict().values() if v.is_floating_point()]
        assert {value.dtype for value in floats} == {dtype}
        built.load_state_dict(module.state_dict())
        built.train(module.training)
        x = x.to(dtype)
        y, gradients = run(built, x)
        assert y.dtype == dtype
        assert {gradient.dtype for gradient in gradients.values()} == {dtype}
        expected, reference = run(copy.deepcopy(module).double(), x.double())
        _close_to(y, expected, tolerance)
        _close_to(_flat(gradients), _flat(reference), 4 * tolerance)


def _flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def _close_to(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Within a fraction of the length of the vector; of machine precision where it is 0."""
    ours, theirs = ours.double(), theirs.double()
    assert torch.isfinite(ours).all()
    error = float((ours - theirs).norm() / theirs.norm())
    assert error <= max(tolerance, 1e-12), f"differs by {error:.2g} of its size"


# Memory.


def takes_channels_last(subject: Subject) -> None:
    """Inputs with the channels last in memory, then the module too; both ways of either."""
    for module, x in fresh(subject, dtype=torch.float64):
        expected = run(copy.deepcopy(module), x)
        last = x.to(memory_format=torch.channels_last)
        moved = copy.deepcopy(module).to(memory_format=torch.channels_last)
        for other, images in ((copy.deepcopy(module), last), (moved, last), (moved, x)):
            if module.training:
                other = copy.deepcopy(other)  # each moves its statistics once
            assert_close(run(other, images), expected)


def keeps_channels_last(subject: Subject) -> None:
    """The output has the channels last too, as that of ``nn.Conv2d`` has."""
    for module, x in fresh(subject):
        module = module.to(memory_format=torch.channels_last)
        y = module(x.to(memory_format=torch.channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last), "the output is contiguous"


def takes_strided_inputs(subject: Subject) -> None:
    for module, x in fresh(subject, dtype=torch.float64):
        expected = run(copy.deepcopy(module), x)
        turned = x.transpose(2, 3).contiguous().transpose(2, 3)
        sparse = torch.stack([x, x], -1).flatten(3)[..., ::2]
        wide = x[:1].expand(3, -1, -1, -1)
        for images in (turned, sparse):
            assert not images.is_contiguous()
            assert_close(run(copy.deepcopy(module), images), expected)
        one = run(copy.deepcopy(module), wide.contiguous())
        assert_close(run(copy.deepcopy(module), wide), one)


# Copies.


def copies(subject: Subject) -> None:
    for module, x in fresh(subject):
        twin = copy.deepcopy(module)
        theirs = {tensor.data_ptr() for tensor in module.state_dict().values()}
        assert not any(tensor.data_ptr() in theirs for tensor in twin.state_dict().values())
        assert twin.training == module.training
        assert_close(run(twin, x), run(module, x), rtol=0, atol=0)


def pickles(subject: Subject) -> None:
    for module, x in fresh(subject):
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        assert_close(run(loaded, x), run(module, x), rtol=0, atol=0)


def round_trips(subject: Subject) -> None:
    """All that decides the output is in the ``state_dict``; it fits a module without values too."""
    for module, x in fresh(subject):
        if module.training:
            module(x)  # moves the statistics
        state = module.state_dict()
        missing = {name for name, _ in module.named_buffers()} - set(state)
        assert not missing, f"buffers {missing} are not in the state_dict"
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        module.eval()
        for assign, device in ((False, None), (True, "meta"), (False, "meta")):
            other = subject.build(device=device).eval()
            if device is not None and not assign:
                other.to_empty(device="cpu")
            for tensor in [*other.parameters(), *other.buffers()]:
                if tensor.is_floating_point() and not tensor.is_meta:
                    tensor.detach().fill_(float("nan"))
            other.load_state_dict(state, assign=assign)
            assert_close(other(x), module(x), rtol=0, atol=0)


def builds_without_values(subject: Subject) -> None:
    """On the meta device: nothing is allocated, shapes are right, in all modes, deployed too."""
    expected = subject.build().eval()(subject.images()).shape
    module = subject.build(device="meta")
    assert all(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])
    for mode in modes(subject):
        assert module.train(mode)(subject.images(device="meta")).shape == expected
    deployed = to_inference(module)
    assert all(tensor.is_meta for tensor in deployed.state_dict().values())
    assert deployed(subject.images(device="meta")).shape == expected


# Small inputs.


def takes_no_images(subject: Subject) -> None:
    """An empty batch in ``eval()``."""
    module = subject.build().eval()
    expected = module(subject.images()).shape[1:]
    assert module(subject.images(0)).shape == (0, *expected)


def trains_on_no_images(subject: Subject) -> None:
    """An empty batch in ``train()``, which leaves all statistics finite."""
    module = subject.build().train()
    expected = module(subject.images()).shape[1:]
    y, _ = run(module, subject.images(0))
    assert y.shape == (0, *expected)
    assert all(torch.isfinite(buffer).all() for buffer in module.buffers()), (
        "a statistic is not finite any more"
    )


def trains_on_one_pixel(subject: Subject) -> None:
    """One image of one pixel."""
    module = subject.build().train()
    y, gradients = run(module, subject.images(1, (1, 1)))
    assert y.shape[0] == 1
    assert all(torch.isfinite(value).all() for value in (y, *gradients.values()))
    assert all(torch.isfinite(buffer).all() for buffer in module.buffers())


# Gradients.


def differentiates_twice(subject: Subject, train: bool = True) -> None:
    """In ``train()`` where the module has that, else in ``eval()``."""
    mode = train and modes(subject)[0]
    module = subject.build(dtype=torch.float64).train(mode)
    names = [name for name, _ in module.named_parameters()]
    state = {name: buffer.clone() for name, buffer in module.named_buffers()}

    def forward(x: Tensor, *values: Tensor) -> Tensor:  # from the same statistics at each call
        buffers = {name: buffer.clone() for name, buffer in state.items()}
        return functional_call(module, dict(zip(names, values, strict=True)) | buffers, (x,))

    x = subject.images(2, (4, 3), dtype=torch.float64).requires_grad_()
    assert gradgradcheck(forward, (x, *module.parameters()), fast_mode=True)


def differentiates_twice_in_eval(subject: Subject) -> None:
    differentiates_twice(subject, train=False)


def trains(subject: Subject) -> None:
    """A step in ``train()`` reaches every parameter."""
    module = subject.build(dtype=torch.float64).train()
    _, gradients = run(module, subject.images(dtype=torch.float64))
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    dead = {name for name, g in gradients.items() if float(g.abs().max()) <= 1e-10 * largest}
    assert not dead, f"the gradient of {sorted(dead)} is zero"
