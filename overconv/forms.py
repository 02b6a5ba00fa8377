"""Which way to evaluate each dynamic layer: a plan by counted work or by measured time.

A layer that makes its kernel for each sample can be evaluated in several ways that give the same
outputs (:meth:`overconv.operators.base.OverConv2d.forms`): a chain in any order of its product,
parallel kernels mixed as weights or as features. Which is the cheapest depends on the size of the
image, the channels, the batch and the machine, so no fixed form is right: a plan chooses for each
layer of a network.
"""

import json
import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from overconv.operators.base import OverConv2d
from overconv.timing import interleaved

logger = logging.getLogger("overconv")

OBJECTIVES = ("macs", "latency")

# Forms of that many times the least work are not timed.
_HOPELESS = 8
# Timed forms this close to the fastest count as equal, and the one of least work is taken.
_CLOSE = 1.005

# Seconds of each form, by all that they depend on; for this process.
_measured: dict[tuple[Any, ...], dict[str, float]] = {}


@dataclass(frozen=True)
class Choice:
    """The form of one layer, and what it was chosen from.

    Attributes:
        layer: Name of the layer in its network.
        option: The attribute of the layer that is set, and
        form: its value.
        macs: Multiply-accumulates an image, by form; work that serves the whole batch is shared
            out.
        seconds: Least time of a call by form, where time was measured; forms that need many times
            the least work are not timed.
    """

    layer: str
    option: str
    form: str
    macs: dict[str, float]
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A form for each layer of a network that has a choice; can be printed, saved and applied.

    Attributes:
        objective: ``"macs"`` or ``"latency"``.
        input_shape: Of the images that it was made for.
        where: Device, dtype and threads that it was made for.
        choices: One for each layer, in order of registration.
    """

    objective: str
    input_shape: tuple[int, ...]
    where: str
    choices: tuple[Choice, ...]

    def apply(self, model: nn.Module) -> nn.Module:
        """A deep copy of ``model`` whose layers have the forms of the plan.

        Raises:
            ValueError: ``model`` lacks a layer of the plan, or that one has no such form.
        """
        planned = deepcopy(model)
        for choice in self.choices:
            try:
                layer = planned.get_submodule(choice.layer)
            except AttributeError:
                layer = None
            if getattr(layer, "form_option", None) != choice.option:
                found = "no such module" if layer is None else f"a {type(layer).__name__}"
                raise ValueError(
                    f"the plan is for another network: it sets {choice.option!r} of"
                    f" {choice.layer!r}, which is {found}"
                )
            setattr(layer, choice.option, choice.form)
        return planned

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The plan that :meth:`save` wrote.

        Raises:
            ValueError: The file holds no plan.
        """
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
            choices = tuple(Choice(**choice) for choice in stored.pop("choices"))
            for choice in choices:
                named = (choice.layer, choice.option, choice.form)
                if not all(isinstance(name, str) for name in named):
                    raise TypeError(f"a layer, an option and a form are names, got {named}")
            shape = tuple(stored.pop("input_shape"))
            return cls(choices=choices, input_shape=shape, **stored)
        except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} holds no plan: {error}") from None

    def __str__(self) -> str:
        head = f"plan by {self.objective} for {self.input_shape}, {self.where}"
        if not self.choices:
            return f"{head}: no layer has a choice"
        wide = max(len(choice.layer) for choice in self.choices)
        return "\n".join([head, *(f"  {_line(choice, wide)}" for choice in self.choices)])


def _line(choice: Choice, wide: int) -> str:
    """One layer: its form, and what each form costs, least first."""
    unit, costs = ("ms", choice.seconds) if choice.seconds else ("MMACs", choice.macs)
    scale = 1e3 if choice.seconds else 1e-6
    ranked = sorted(costs, key=lambda form: costs[form])
    shown = ", ".join(f"{form} {costs[form] * scale:.3g}" for form in ranked)
    return f"{choice.layer:{wide}}  {choice.option}={choice.form!r}  ({unit}: {shown})"


def plan_forms(model: nn.Module, example_input: Tensor, objective: str = "macs") -> nn.Module:
    """A deep copy of ``model`` in which each layer has its best form; see :func:`make_plan`."""
    return make_plan(model, example_input, objective).apply(model)


def make_plan(model: nn.Module, example_input: Tensor, objective: str = "macs") -> Plan:
    """Choose a form for each layer of ``model`` that has a choice.

    Args:
        model: A network, best after :func:`overconv.surgery.to_inference`; stays as it is. In
            ``train()`` the forms are those of training, and time is that of a forward and a
            backward pass.
        example_input: Images (B, C, H, W), on the device of the network, of the size and the batch
            to plan for.
        objective: ``"macs"``: least work, by formula, the same on every machine. ``"latency"``:
            least time, measured in place, on the values that the layer sees, alternatives
            interleaved, minimum of the samples. Times are remembered in this process by layer,
            shapes, dtype, memory format, device and threads.

    Raises:
        ValueError: ``objective`` is unknown, or ``example_input`` is empty.

    Example:
        >>> from overconv.operators.mdconv import MDConv2d
        >>> layer = MDConv2d(64, 64, 3, padding=1).eval()
        >>> make_plan(nn.Sequential(layer), torch.zeros(1, 64, 7, 7)).choices[0].form
        'expanding'
    """
    if objective not in OBJECTIVES:
        raise ValueError(
            f"objective must be one of {', '.join(map(repr, OBJECTIVES))}, got {objective!r}"
        )
    if example_input.numel() == 0:
        raise ValueError(f"example_input must hold images, got {tuple(example_input.shape)}")
    work = _work(model, example_input)
    seconds: dict[str, dict[str, float]] = {}
    if objective == "latency":
        seconds = _times(model, example_input, work)
    choices = []
    for name, macs in work.items():
        option = getattr(model.get_submodule(name), "form_option", None)
        assert option is not None, "a layer with several forms has an option for them"
        spent = seconds.get(name, {})
        choices.append(Choice(name, option, _best(macs, spent), macs, spent))
    where = f"{example_input.device}, {example_input.dtype}, {torch.get_num_threads()} threads"
    plan = Plan(objective, tuple(example_input.shape), where, tuple(choices))
    logger.info("%s", plan)
    return plan


def _work(model: nn.Module, example_input: Tensor) -> dict[str, dict[str, float]]:
    """Multiply-accumulates an image of each form of each layer with a choice, over all its calls.

    A layer that sees images of several sizes may have other forms on each: those of all count.
    """
    calls: dict[str, list[dict[str, float]]] = {}

    def look(name: str, layer: OverConv2d, x: Tensor) -> None:
        batch = max(1, x.shape[0])
        forms = layer.forms((x.shape[2], x.shape[3]), batch)
        calls.setdefault(name, []).append({f: m.per_image(batch) for f, m in forms.items()})

    _visit(model, example_input, look)
    work = {}
    for name, costs in calls.items():
        common = [form for form in costs[0] if all(form in cost for cost in costs)]
        if len(common) > 1:
            work[name] = {form: sum(cost[form] for cost in costs) for form in common}
    return work


def _times(
    model: nn.Module, example_input: Tensor, work: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Seconds of each form that is worth timing, over all calls, each on the values it sees."""
    worth = {
        name: [form for form in macs if macs[form] <= _HOPELESS * min(macs.values())]
        for name, macs in work.items()
    }
    seconds: dict[str, dict[str, float]] = {}

    def look(name: str, layer: OverConv2d, x: Tensor) -> None:
        if name not in worth or x.shape[0] == 0:
            return
        key = _key(layer, x, worth[name])
        if key not in _measured:
            _measured[key] = _measure(layer, x, worth[name])
        total = seconds.setdefault(name, dict.fromkeys(worth[name], 0.0))
        for form in worth[name]:
            total[form] += _measured[key][form]

    _visit(model, example_input, look)
    return seconds


@torch.no_grad()
def _visit(
    model: nn.Module, example_input: Tensor, look: Callable[[str, OverConv2d, Tensor], None]
) -> None:
    """Run the network, and have ``look`` see each layer with a choice when its input is there."""
    running = deepcopy(model)  # a run in training moves running statistics

    def seen(name: str, layer: OverConv2d) -> Callable[..., None]:
        return lambda module, args, kwargs: look(name, layer, args[0] if args else kwargs["x"])

    for name, module in running.named_modules():
        if isinstance(module, OverConv2d) and module.form_option is not None:
            layer = model.get_submodule(name)
            assert isinstance(layer, OverConv2d)
            module.register_forward_pre_hook(seen(name, layer), with_kwargs=True)
    cuda = [example_input.device] if example_input.device.type == "cuda" else []
    with torch.random.fork_rng(cuda):  # dropout in training draws
        running(example_input)


def _best(macs: dict[str, float], seconds: dict[str, float]) -> str:
    if not seconds:
        return min(macs, key=lambda form: macs[form])
    limit = _CLOSE * min(seconds.values())
    return min((f for f in seconds if seconds[f] <= limit), key=lambda form: macs[form])


def _key(layer: OverConv2d, x: Tensor, forms: list[str]) -> tuple[Any, ...]:
    """All that the time of a layer depends on, but for the state of the machine."""
    option = str(layer.form_option)
    described = repr(layer).replace(f"{option}={getattr(layer, option)!r}", option)
    device = x.device.type
    return (
        described,  # the layer, its options and those of its gate
        layer.training,
        tuple((n, p.shape, p.stride(), p.requires_grad) for n, p in layer.named_parameters()),
        tuple((n, b.shape) for n, b in layer.named_buffers()),
        tuple(forms),
        x.shape,
        x.stride(),
        x.dtype,
        str(x.device),
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        torch.get_num_threads(),
    )


def _measure(layer: OverConv2d, x: Tensor, forms: list[str]) -> dict[str, float]:
    """Two heats: a short one for all forms, a longer one for those near the front."""
    assert layer.form_option is not None
    calls = {}
    for form in forms:
        copy = deepcopy(layer)  # of its own, since a run in training moves running statistics
        for module in copy.modules():  # what a user hangs on the network is not timed
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        setattr(copy, layer.form_option, form)
        calls[form] = _training_call(copy, x) if layer.training else _inference_call(copy, x)
    heat = interleaved(calls, rounds=8, warmup=2, device=x.device)
    best = {form: min(samples) for form, samples in heat.items()}
    front = [form for form in forms if best[form] <= 1.5 * min(best.values())]
    if len(front) > 1:
        passes = max(1, round(2e-4 / min(best.values())))  # a sample is long enough for the clock
        heat = interleaved(
            {form: calls[form] for form in front}, rounds=40, calls=passes, device=x.device
        )
        best |= {form: min(samples) for form, samples in heat.items()}
    return best


def _inference_call(layer: OverConv2d, x: Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return layer(x)

    return call


def _training_call(layer: OverConv2d, x: Tensor) -> Callable[[], object]:
    with torch.inference_mode(False):
        image = x.detach().clone().requires_grad_()
    wanted = [image, *(p for p in layer.parameters() if p.requires_grad)]

    def call() -> object:
        with torch.inference_mode(False), torch.enable_grad():
            return torch.autograd.grad(layer(image).sum(), wanted, allow_unused=True)

    return call
