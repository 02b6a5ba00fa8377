"""Gates: values by hand, running estimates, temperature schedule."""

import math

import pytest
import torch
from torch import nn

from overconv.gates import PooledGate, Squash, TemperatureSchedule
from overconv.inference_gate import InferenceGate


def gate_off_neutral(**options):
    gate = PooledGate(3, [2, 4], **{"hidden": 5, **options}).double()
    for parameter in gate.parameters():
        nn.init.normal_(parameter)
    return gate


def images(batch=3):
    return torch.randn(batch, 3, 4, 2, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["2sigmoid", "sigmoid", "softmax"])
@pytest.mark.parametrize("temperature", [None, 0.5, 7.0])
def test_squash(kind, temperature):
    logits = torch.randn(2, 5, dtype=torch.float64)
    powers = (logits / (temperature or 1.0)).exp()
    expected = {
        "2sigmoid": 2 * powers / (1 + powers),
        "sigmoid": powers / (1 + powers),
        "softmax": powers / powers.sum(1, keepdim=True),
    }[kind]
    squash = Squash(kind, temperature)
    torch.testing.assert_close(squash(logits), expected, rtol=0, atol=1e-12)
    equal = squash(torch.full((1, 5), 0.0))
    torch.testing.assert_close(equal, torch.full((1, 5), squash.neutral(5)))


@pytest.mark.parametrize("hidden", [None, 5])
@pytest.mark.parametrize("squash", ["2sigmoid", "sigmoid", "softmax"])
def test_starts_neutral_for_every_input(squash, hidden):
    gate = PooledGate(3, [2, 4], hidden=hidden, squash=squash, temperature=3.0)
    for head, neutral in zip(gate(100 * torch.randn(2, 3, 4, 4)), gate.neutral, strict=True):
        torch.testing.assert_close(head, torch.full_like(head, neutral))


@pytest.mark.parametrize("hidden", [None, 5])
def test_each_sample_has_its_own_gates(hidden, oracle_gate):
    gate, x = gate_off_neutral(hidden=hidden, temperature=0.7), images()
    for head, expected in zip(gate(x), oracle_gate(gate, x), strict=True):
        torch.testing.assert_close(head, expected, rtol=0, atol=1e-12)
        assert (head[0] - head[1]).abs().max() > 1e-3


@pytest.fixture
def oracle_gate():
    def values(gate, x):
        rows = []
        for sample in x:
            hidden = torch.stack([channel.mean() for channel in sample])
            if gate.squeeze is not None:
                hidden = (gate.squeeze.weight @ hidden + gate.squeeze.bias).clamp_min(0)
            logits = gate.excite.weight @ hidden + gate.excite.bias
            rows.append(2 / (1 + (-logits / gate.squash.temperature).exp()))
        stacked = torch.stack(rows)
        return stacked[:, :2], stacked[:, 2:]

    return values


def test_a_batch_gate_is_that_of_the_mean_image(oracle_gate):
    gate, x = gate_off_neutral(when="batch"), images()
    for head, expected in zip(gate(x), oracle_gate(gate, x.mean(0, keepdim=True)), strict=True):
        assert head.shape[0] == 1
        torch.testing.assert_close(head, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("when", ["batch", "training"])
def test_eval_uses_the_running_mean_of_the_gates(when, batch):
    gate = gate_off_neutral(when=when)
    expected = gate.running.clone()
    torch.testing.assert_close(expected, torch.ones(6, dtype=torch.float64))
    for _ in range(3):
        gates = torch.cat(gate(images(batch)), 1)
        assert gates.shape[0] == (1 if when == "batch" else batch)
        expected = 0.9 * expected + 0.1 * gates.detach().mean(0)
    assert not gate.running.requires_grad
    gate.eval()
    before = gate.running.clone()
    for x in (images(), images(1)):
        values = torch.cat(gate(x), 1)
        torch.testing.assert_close(values, expected[None], rtol=0, atol=1e-12)
    torch.testing.assert_close(gate.running, before, rtol=0, atol=0)


def test_the_running_mean_starts_neutral_and_resets():
    gate = PooledGate(3, [2, 4], hidden=4, squash="softmax", when="training")
    neutral = torch.tensor([0.5, 0.5, 0.25, 0.25, 0.25, 0.25])
    torch.testing.assert_close(gate.running, neutral)
    gate.running.zero_()
    gate.reset_parameters()
    torch.testing.assert_close(gate.running, neutral)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"when": "never"}, "when must be one of 'sample', 'batch', 'training', got 'never'"),
        ({"squash": "tanh"}, "squash must be one of .*'softmax', got 'tanh'"),
        ({"temperature": 0}, "temperature must be positive and finite, got 0"),
        ({"temperature": float("nan")}, "temperature must be positive and finite, got nan"),
        ({"squash": "softmax", "widths": [3, 1]}, "over a single value"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        PooledGate(3, options.pop("widths", [2]), hidden=4, **options)


def test_schedule_moves_linearly_and_then_stays():
    schedule = TemperatureSchedule(start=30, end=1, until=0.5)
    for progress, expected in [(0, 30), (0.25, 15.5), (0.5, 1), (0.7, 1), (1, 1)]:
        assert schedule.temperature(progress) == pytest.approx(expected)


def test_schedule_sets_every_temperature_and_state_dict_keeps_it():
    def build():
        return nn.Sequential(
            PooledGate(3, [2], hidden=4), nn.Sequential(PooledGate(3, [2], hidden=None))
        )

    model = build()
    TemperatureSchedule(start=9, end=1, until=1).apply(model, 0.5)
    assert [float(m.temperature) for m in model.modules() if isinstance(m, Squash)] == [5, 5]
    other = build()
    other.load_state_dict(model.state_dict())
    assert float(other[0].squash.temperature) == 5


@pytest.mark.parametrize("model", [nn.Linear(2, 2), PooledGate(3, [2], hidden=4, temperature=None)])
def test_schedule_without_a_temperature_is_an_error(model):
    with pytest.raises(ValueError, match="no gate with a temperature"):
        TemperatureSchedule().apply(model, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 0}, "start must be positive and finite, got 0"),
        ({"end": -1}, "end must be positive and finite, got -1"),
        ({"until": 0}, r"until must lie in \(0, 1\], got 0"),
        ({"until": 1.5}, r"until must lie in \(0, 1\], got 1.5"),
    ],
)
def test_schedule_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        TemperatureSchedule(**options)


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_schedule_rejects_progress(progress):
    with pytest.raises(ValueError, match="progress must lie in"):
        TemperatureSchedule().temperature(progress)


@pytest.mark.parametrize("kind", ["2sigmoid", "sigmoid", "softmax"])
def test_a_temperature_that_moved_goes_back_to_where_it_started(kind):
    gate = PooledGate(3, [2, 4], hidden=4, squash=kind, temperature=7.0)
    TemperatureSchedule(30, 1, 0.5).apply(gate, 0.75)
    assert float(gate.squash.temperature) == 1
    gate.reset_parameters()
    assert float(gate.squash.temperature) == 7
    untempered = PooledGate(3, [2, 4], hidden=4, squash=kind, temperature=None)
    untempered.reset_parameters()
    assert untempered.squash.temperature is None


# At inference.


@pytest.mark.parametrize("squash", ["2sigmoid", "sigmoid", "softmax"])
@pytest.mark.parametrize("hidden", [None, 5])
@pytest.mark.parametrize("widths", [[4], [2, 3]])
@pytest.mark.parametrize("temperature", [None, 0.7])
def test_the_gate_at_inference_gives_the_same(squash, hidden, widths, temperature):
    gate = PooledGate(3, widths, hidden=hidden, squash=squash, temperature=temperature).double()
    for parameter in gate.parameters():
        nn.init.normal_(parameter)
    deployed, x = gate.to_inference(), torch.randn(4, 3, 5, 6).double()
    for batch in (4, 1, 0):
        for ours, theirs in zip(deployed(x[:batch]), gate(x[:batch]), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert deployed.macs((5, 6)) == gate.macs((5, 6))
    assert not deployed.training
    for ours, theirs in zip(deployed.to_inference()(x), gate(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    halved = deployed.halve()
    factors = [2 if had else 1 for had in halved]
    assert halved == [squash == "2sigmoid"] * len(widths)
    for factor, ours, theirs in zip(factors, deployed(x), gate(x), strict=True):
        torch.testing.assert_close(factor * ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("wide_in", "wide_out"), [(8, 2), (2, 8), (4, 4), (1, 3), (3, 1)])
def test_its_matrices_lie_in_memory_along_their_longer_side(wide_in, wide_out):
    weight, bias = torch.randn(wide_out, wide_in).double(), torch.randn(wide_out).double()
    gate = InferenceGate([(weight, bias)], [("sigmoid", [wide_out])])
    for copy in (gate, gate.to_inference()):
        assert copy.matrix0.shape == (wide_in, wide_out)
        assert copy.matrix0.stride(int(wide_out >= wide_in)) == 1
        x = torch.randn(2, wide_in, 3, 3).double()
        expected = (x.mean((2, 3)) @ weight.t() + bias).sigmoid()
        torch.testing.assert_close(copy(x)[0], expected, rtol=0, atol=1e-12)


def test_the_gate_at_inference_mixes_kinds():
    """The heads of several kinds come in the order in which they are given."""
    weight, bias = torch.randn(9, 3).double(), torch.randn(9).double()
    blocks = [("sigmoid", [2, 1]), ("softmax", [2, 3]), ("2sigmoid", [1])]
    gate, x = InferenceGate([(weight, bias)], blocks), torch.randn(2, 3, 4, 4).double()
    logits = (x.mean((2, 3)) @ weight.t() + bias).split([2, 1, 2, 3, 1], 1)
    expected = [logits[0].sigmoid(), logits[1].sigmoid()]
    expected += [logits[2].softmax(1), logits[3].softmax(1), 2 * logits[4].sigmoid()]
    assert gate.widths == [2, 1, 2, 3, 1]
    for ours, theirs in zip(gate(x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_the_gate_at_inference_does_not_overflow_in_half_precision():
    gate = PooledGate(2, [3], hidden=None).to_inference().half()
    x = torch.full((1, 2, 64, 64), 100.0).half()  # the sum is 409,600
    assert all(head.isfinite().all() for head in gate(x))
    with torch.no_grad():
        gate.matrix0.fill_(0.01)
    torch.testing.assert_close(
        gate(x)[0].float(), torch.full((1, 3), 2 / (1 + math.exp(-2))), rtol=0, atol=2e-3
    )
