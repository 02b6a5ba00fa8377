"""A trial is a function of its identity: same bits here, in another process, beside other arms."""

import dataclasses
from functools import partial

import pytest
import torch
from torch import nn

from ablations.study import Arm, Study
from ablations.trial import build_network, resolve, run_trial
from overconv import CondConv2d, DyConv2d, MAConv2d, MDConv2d, TemperatureSchedule
from overconv.training import inputs, streams

ENVIRONMENT = {"made": "for tests"}
ARMS = {
    "plain": Arm(),
    "wide": Arm(model={"width": 5.0}),
    "gated": Arm(partial(MDConv2d, depth=3)),
    "own": Arm(partial(MDConv2d, depth=2), start="own"),
    "asymmetric": Arm(MAConv2d),
    "parallel": Arm(
        partial(DyConv2d, num_kernels=2), recipe={"schedules": (TemperatureSchedule(),)}
    ),
    "routed": Arm(partial(CondConv2d, num_kernels=2, on="features"), where="spatial"),
}
STUDY = Study(name="s", question="?", baseline="plain", arms=ARMS)


@pytest.fixture
def cells(setting):
    return resolve(STUDY, setting)


def train(cell, dataset, block=0):
    return run_trial(cell, dataset, block, environment=ENVIRONMENT)


@pytest.mark.parametrize("label", ["plain", "gated", "parallel"])
def test_the_same_trial_gives_the_same_bytes(label, cells, dataset):
    torch.manual_seed(1)
    first = train(cells[label], dataset)
    torch.manual_seed(2)  # whatever happened in the process before
    torch.rand(100)
    assert train(cells[label], dataset).compared() == first.compared()


def test_blocks_differ(cells, dataset):
    first, second = (train(cells["plain"], dataset, block) for block in (0, 1))
    assert first.trial != second.trial
    assert first.curves != second.curves


def reached(cell, dataset, monkeypatch) -> list[bytes]:
    """What reaches the network of ``cell``, batch by batch, in one training."""
    seen: list[bytes] = []
    build = cell.network.func

    class Spy(build):
        def forward(self, x):
            seen.append(x.detach().cpu().numpy().tobytes())
            return super().forward(x)

    spied = partial(Spy, *cell.network.args, **cell.network.keywords)
    train(dataclasses.replace(cell, network=spied, reference=spied), dataset)
    return seen


def test_arms_of_a_block_see_the_same_bytes(cells, dataset, monkeypatch):
    seen = {label: reached(cell, dataset, monkeypatch) for label, cell in cells.items()}
    for label, batches in seen.items():
        assert batches == seen["plain"], label
    assert len(set(seen["plain"])) == len(seen["plain"]), "every batch is another one"


def test_a_shared_order_stream_would_be_seen(cells, dataset, monkeypatch):
    """The planted defect: the order is drawn from a generator that initialisation moves."""
    healthy = streams.stream

    def planted(block, purpose, *index):
        return healthy(block, purpose, *index, torch.initial_seed())

    monkeypatch.setattr(inputs, "stream", planted)
    torch.manual_seed(1)
    first = reached(cells["plain"], dataset, monkeypatch)
    torch.manual_seed(2)
    assert reached(cells["plain"], dataset, monkeypatch) != first


def test_arms_start_equal_outside_the_replaced_layers(cells):
    plain = build_network(cells["plain"], block=3).state_dict()
    for label, cell in cells.items():
        network = build_network(cell, block=3)
        replaced = [n for n, m in network.named_modules() if hasattr(m, "from_conv2d")]
        if not cell.arm.is_plain:
            assert replaced, label
        shared = [
            name
            for name, value in network.state_dict().items()
            if name in plain
            and plain[name].shape == value.shape
            and not name.startswith(tuple(f"{r}." for r in replaced))
        ]
        assert len(shared) > 5, label
        for name in shared:
            assert torch.equal(network.state_dict()[name], plain[name]), (label, name)


@pytest.mark.parametrize("label", ["gated", "parallel", "routed"])
def test_a_plain_start_computes_what_the_plain_network_computes(label, cells):
    x = torch.randn(4, 1, 9, 9)
    plain, other = (build_network(cells[name], block=1) for name in ("plain", label))
    torch.testing.assert_close(other(x), plain(x), rtol=1e-4, atol=1e-5)


def test_an_own_start_does_not(cells):
    x = torch.randn(4, 1, 9, 9)
    plain, other = (build_network(cells[name], block=1) for name in ("plain", "own"))
    assert not torch.allclose(other(x), plain(x), atol=1e-3)


def test_a_replaced_layer_draws_from_its_own_stream(setting):
    """Replacing one convolution more does not change what another one starts as."""
    few = Arm(partial(MDConv2d, depth=2), start="own", where=last_only)
    many = Arm(partial(MDConv2d, depth=2), start="own")
    cells = resolve(dataclasses.replace(STUDY, arms={"plain": Arm(), "f": few, "m": many}), setting)
    few_state, many_state = (build_network(cells[n], 0).state_dict() for n in "fm")
    own = [n for n in few_state if n not in build_network(cells["plain"], 0).state_dict()]
    assert own
    for name in own:
        assert torch.equal(few_state[name], many_state[name]), name


def test_layers_of_one_shape_start_different(cells):
    network = build_network(cells["own"], 0)
    first, second = network.layer1[0].conv1, network.layer1[0].conv2
    for one, other in zip(first.weights, second.weights, strict=True):
        assert one.shape == other.shape
        assert not torch.equal(one, other)


def last_only(name: str, conv: nn.Conv2d) -> bool:
    return conv.in_channels == conv.out_channels == 16 and name.endswith("conv2")


def test_identity_is_what_is_computed(setting, cells):
    identities = {cell.trial(0) for cell in cells.values()}
    assert len(identities) == len(cells)
    relabelled = dataclasses.replace(
        STUDY, name="t", question="other", arms={"p": Arm(), "g": ARMS["gated"]}, baseline="p"
    )
    again = resolve(relabelled, dataclasses.replace(setting, preset="other"))
    assert again["g"].trial(0) == cells["gated"].trial(0)


@pytest.mark.parametrize("field", ["epochs", "batch_size", "lr", "weight_decay", "flip"])
def test_every_field_of_the_recipe_is_identity(field, setting, cells):
    value = getattr(setting.recipe, field)
    changed = not value if isinstance(value, bool) else value * 2
    recipe = dataclasses.replace(setting.recipe, **{field: changed})
    other = resolve(STUDY, dataclasses.replace(setting, recipe=recipe))
    assert other["plain"].trial(0) != cells["plain"].trial(0)


def test_threads_are_not_identity(setting, cells):
    recipe = dataclasses.replace(setting.recipe, threads=2)
    other = resolve(STUDY, dataclasses.replace(setting, recipe=recipe))
    assert other["plain"].trial(0) == cells["plain"].trial(0)


def test_a_default_that_is_computed_is_identity(setting, cells, monkeypatch):
    """No signature shows how wide a gate's hidden layer is; the parameters' shapes do."""
    from overconv.operators import chain_layers

    before = cells["gated"].trial(0)
    monkeypatch.setattr(chain_layers, "max", lambda a, b: max(a, b) + 1, raising=False)
    assert resolve(STUDY, setting)["gated"].trial(0) != before


def test_what_a_changed_network_starts_from_is_identity(setting):
    """The same network, once as an arm's change of another and once as the setting's own."""
    wide = {"plain": Arm(), "wide": Arm(model={"width": 5})}
    cells = resolve(dataclasses.replace(STUDY, arms=wide), setting)
    own = dataclasses.replace(setting, model=partial(setting.model, width=5))
    plain = resolve(dataclasses.replace(STUDY, arms=wide), own)["plain"]
    states = [build_network(cell, 0).state_dict() for cell in (cells["wide"], plain)]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert cells["wide"].trial(0) != plain.trial(0)


def test_the_data_are_identity(setting, cells):
    data = dataclasses.replace(setting.dataset, fingerprint="other")
    other = resolve(STUDY, dataclasses.replace(setting, dataset=data))
    assert other["plain"].trial(0) != cells["plain"].trial(0)


def test_a_record_is_complete(cells, dataset):
    record = train(cells["gated"], dataset, block=2)
    assert record.trial == cells["gated"].trial(2)
    assert record.outcome == "finished"
    assert record.costs["parameters_training"] > record.costs["parameters_deployed"] > 0 or (
        record.costs["parameters_training"] == record.costs["parameters_deployed"]
    )
    assert record.costs["flops_training"] == 2 * record.costs["macs_training"]
    assert 0 <= record.metrics["test_accuracy"] <= 1
    assert {len(curve) for curve in record.curves.values()} == {1}


def test_a_diverged_trial_is_a_record(setting, dataset):
    recipe = dataclasses.replace(setting.recipe, lr=1e30)
    cell = resolve(STUDY, dataclasses.replace(setting, recipe=recipe))["plain"]
    record = train(cell, dataset)
    assert record.outcome == "diverged"
    assert record.correct is None
    assert record.metrics["test_accuracy"] is None
