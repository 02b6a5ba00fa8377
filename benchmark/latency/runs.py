"""Runs of the commands ``operators`` and ``models``: from modules to measurements."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.latency.options import AT_ONCE
from benchmark.latency.situations import Situation, alternative, in_state
from benchmark.tables import machine
from overconv.bench.devices import CudaDevice, Device, find_device, fingerprint, fingerprint_key
from overconv.bench.latency import Alternative, Measured, measure
from overconv.costs import count_cost
from overconv.counters import count
from overconv.operators.base import OverConv2d
from records.benchmark import Measurement


@dataclass(frozen=True)
class Built:
    """One alternative: what it is called, how it is recorded, and the module.

    Attributes:
        name: For people.
        arm: As in :class:`records.benchmark.Measurement`.
        module: As built, in ``train()``.
        exact: What has to compute the same; None: ``module`` itself, by its definition.
        form: The form that was asked for; None: any.
    """

    name: str
    arm: dict[str, Any]
    module: nn.Module
    exact: nn.Module | None = None
    form: str | None = None


def run(
    kind: str,
    subject: dict[str, Any],
    reference: Built,
    others: Sequence[Callable[[], Built]],
    situation: Situation,
    channels: int,
    options: argparse.Namespace,
) -> Iterator[Measurement]:
    """Measure alternatives, few at once, each time with the plain one among them.

    A GPU without memory enough for one of them makes a measurement that says so.

    Raises:
        ValueError: A module cannot be in this situation.
        WrongOutput: A module computes something else than it should; nothing has been timed then.
        Throttled: The device was throttled all the time.
    """
    torch.set_num_threads(situation.threads)
    device = find_device(situation.device)
    for start in range(0, len(others), AT_ONCE):
        built = [reference, *(make() for make in others[start : start + AT_ONCE])]
        print(
            f"{', '.join(each.name for each in built[1:])}: {situation}",
            file=sys.stderr,
            flush=True,
        )
        try:
            yield from _together(kind, subject, built, situation, channels, options, device)
        except torch.OutOfMemoryError:
            torch.accelerator.empty_cache()
            for each in built[1:]:  # one by one, to know which of them
                try:
                    yield from _together(
                        kind, subject, [reference, each], situation, channels, options, device
                    )
                except torch.OutOfMemoryError:
                    torch.accelerator.empty_cache()
                    yield _without_memory(kind, subject, each, situation)


def _together(
    kind: str,
    subject: dict[str, Any],
    built: Sequence[Built],
    situation: Situation,
    channels: int,
    options: argparse.Namespace,
    device: Device,
) -> list[Measurement]:
    x = situation.images(channels)
    made, timed = {}, {}
    for each in built:
        module = situation.placed(each.module)
        exact = None if each.exact is None else situation.placed(each.exact)
        made[each.name] = in_state(module, situation, x)
        _check_form(each, made[each.name], situation)
        timed[each.name] = alternative(each.name, module, made[each.name], situation, x, exact)
    reference = built[0].name
    limits: dict[str, Any] = {"seconds": options.seconds, "precision": options.precision}
    found = measure(timed, reference=reference, device=device, **limits)
    graphs = _graphs(timed, reference, device, limits)
    plain = costs_of(made[reference], x)
    rows = []
    for each in built[1:]:
        costs = costs_of(made[each.name], x)
        if options.memory:
            costs |= _memory(timed[each.name], situation, device)
        rows.append(
            _measurement(kind, subject, each, situation, costs, plain, found, graphs.get(each.name))
        )
    return rows


def _check_form(each: Built, made: nn.Module, situation: Situation) -> None:
    """Raise a ValueError where a state has chosen another form than the one asked for."""
    for module in made.modules():
        if each.form is None or not isinstance(module, OverConv2d) or module.form_option is None:
            continue
        found = getattr(module, module.form_option)
        if found != each.form:
            raise ValueError(
                f"{each.name}: in the state {situation.state!r} it has"
                f" {module.form_option}={found!r}; forms that are asked for are kept in the states"
                " eval and train"
            )


def costs_of(module: nn.Module, x: Tensor) -> dict[str, Any]:
    """Parameters, and multiply-accumulates of one image, by formula and in the form it has."""
    cost = count_cost(module, x, backward=False)
    macs = cost.macs.per_image(x.shape[0])
    return {"parameters": cost.parameters, "macs": int(macs) if macs == int(macs) else macs}


def _memory(timed: Alternative, situation: Situation, device: Device) -> dict[str, Any]:
    if isinstance(device, CudaDevice):
        return dict(device.gpu.peak_bytes(timed.call))
    if situation.state == "compiled":
        raise ValueError("--memory counts what is dispatched on a CPU, and compiled code is not")
    return {"peak_bytes": count(timed.call).peak_bytes}


def _graphs(
    timed: Mapping[str, Alternative], reference: str, device: Device, limits: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """The same as CUDA graphs, without the time of the launches, or why there is none."""
    if not isinstance(device, CudaDevice):
        return {}
    captured = {name: device.captured(each.call) for name, each in timed.items()}
    reasons = {name: {"why": why} for name, (_, why) in captured.items() if why}
    replays = {name: Alternative(call) for name, (call, _) in captured.items() if call is not None}
    if reference not in replays:
        why = f"{reference} cannot be captured: {reasons[reference]['why']}"
        return {name: reasons.get(name, {"why": why}) for name in timed}
    if len(replays) < 2:
        return reasons
    found = measure(replays, reference=reference, device=device, **limits)
    return reasons | {
        name: {"ratio": asdict(found.ratio(name)), "seconds": asdict(found.summary(name))}
        for name in replays
    }


def _measurement(
    kind: str,
    subject: dict[str, Any],
    each: Built,
    situation: Situation,
    costs: dict[str, Any],
    plain: dict[str, Any],
    found: Measured,
    graph: dict[str, Any] | None,
) -> Measurement:
    series, summary = found.series[each.name], found.summary(each.name)
    figures = asdict(summary)
    seconds = {name: figures.pop(name) for name in ("minimum", "p20", "median", "p90")}
    host = sum(s.cpu for s in series.samples) / len(series.samples)
    run = figures | {
        "calls": series.calls,
        "warmup_calls": series.warmup_calls,
        "settled": series.settled,
        "seconds": found.seconds,
        "dropped": found.dropped,
        "throttled": found.throttled,
        "unmet": found.unmet,
        "reference": {"name": found.reference, "costs": plain}
        | asdict(found.summary(found.reference)),
        # The host needs as long to launch as the GPU to compute.
        "launch_bound": host > 0.9 * summary.median if graph is not None else None,
    }
    return Measurement(
        **_described(kind, subject, each, situation),
        outcome="measured",
        costs=costs,
        seconds=seconds | {"first_call": series.first_call},
        ratio=asdict(found.ratio(each.name)),
        samples=_rows(found, each.name),
        reference=_rows(found, found.reference),
        run=run,
        graph=graph,
        environment=machine() | {"before": found.before, "after": found.after},
    )


def _rows(found: Measured, name: str) -> list[tuple[float, float, int]]:
    """The samples, to the nanosecond."""
    return [(round(s.wall, 9), round(s.cpu, 9), s.switches) for s in found.series[name].samples]


def _described(
    kind: str, subject: dict[str, Any], each: Built, situation: Situation
) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": each.name,
        "arm": each.arm,
        "subject": subject,
        "situation": situation.as_dict(),
        "fingerprint": fingerprint(situation.device),
        "key": fingerprint_key(situation.device),
        "taken": time.time(),
    }


def _without_memory(
    kind: str, subject: dict[str, Any], each: Built, situation: Situation
) -> Measurement:
    return Measurement(
        **_described(kind, subject, each, situation),
        outcome="out of memory",
        costs={},
        seconds={},
        ratio={},
        samples=[],
        reference=[],
        run={},
        graph=None,
        environment=machine(),
    )
