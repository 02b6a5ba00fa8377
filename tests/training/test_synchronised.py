"""A synchronised model is a plain one to everybody but the batch; who may be, and who may join."""

import copy
import pickle

import pytest
import torch
from torch import nn

from benchmark.variants import moved_statistics
from overconv.forms import plan_forms
from overconv.models.resnet import ResNet
from overconv.norms import fold_norms
from overconv.operators.dbb import DBBConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.operators.odconv import ODConv2d
from overconv.surgery import to_inference
from overconv.training.distributed import joined, reduce_gradients, synchronise
from overconv.training.moments import Synchronised
from overconv.training.world import ALONE, World

SHARED = World(0, 2)  # of which the other is not there: whoever calls it fails


def network() -> nn.Module:
    model = nn.Sequential(
        MAConv2d(3, 4, 3, padding=1, middle="norm+gate"),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        MDConv2d(4, 4, 3, padding=1, when="batch"),
        DBBConv2d(4, 4, 3, padding=1),
        ODConv2d(4, 4, 3, padding=1),
        nn.BatchNorm2d(4),
    )
    return moved_statistics(model)


def classes(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules()]


@pytest.fixture
def pair():
    """A model, and the same one synchronised."""
    model = network()
    shared = copy.deepcopy(model)
    synchronise(shared, SHARED)
    assert sum(isinstance(module, Synchronised) for module in shared.modules()) == 12
    return model, shared


def test_names_and_repr_of_values_stay(pair):
    model, shared = pair
    assert list(shared.state_dict()) == list(model.state_dict())
    assert [name for name, _ in shared.named_modules()] == [n for n, _ in model.named_modules()]
    shared.load_state_dict(model.state_dict())
    assert "SynchronisedBatchNorm2d(4," in repr(shared)


def test_without_the_other_rank_there_is_no_training(pair):
    """So what follows would fail if it asked for the whole batch."""
    with pytest.raises(ValueError, match="process group has not been initialized"):
        pair[1](torch.randn(2, 3, 5, 5))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_plain(pair, duplicate):
    model, shared = pair
    made = duplicate(shared)
    assert classes(made) == classes(model)
    assert any(isinstance(module, Synchronised) for module in shared.modules()), "as it was"
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(made(x), model(x))


def test_a_copy_of_one_module_is_plain(pair):
    norm = pair[1][1]
    assert type(copy.copy(norm)) is nn.BatchNorm2d
    parametrised = torch.nn.utils.parametrizations.weight_norm(nn.BatchNorm1d(3), dim=0)
    plain = type(parametrised)
    synchronise(parametrised, SHARED)
    assert type(copy.deepcopy(parametrised)) is plain


def test_eval_is_unaffected(pair):
    model, shared = pair
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(shared.eval()(x), model.eval()(x))


@pytest.mark.parametrize("convert", [to_inference, lambda m: fold_norms(m)[0]])
def test_deployment_is_unaffected(pair, convert):
    model, shared = map(convert, pair)
    assert classes(shared) == classes(model)
    assert not any(
        type(module) is nn.BatchNorm2d and "." not in name
        for name, module in shared.named_modules()
    )
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(shared(x), model(x))


def test_plans_are_unaffected(pair):
    x = torch.randn(1, 3, 5, 5)
    model, shared = (plan_forms(part.eval(), x) for part in pair)
    assert classes(shared) == classes(model)


@pytest.mark.parametrize("training", [False, True])
def test_exports_are_unaffected(pair, training):
    x = torch.randn(2, 3, 5, 5)
    model, shared = (torch.export.export(part[:3].train(training), (x,)) for part in pair)
    assert str(shared.graph) == str(model.graph)
    assert torch.equal(shared.module()(x), model.module()(x))


def test_alone_takes_it_back(pair):
    model, shared = pair
    synchronise(shared, World(1, 3))  # another one, in between
    assert shared[1].world == World(1, 3)
    synchronise(shared, ALONE)
    assert classes(shared) == classes(model)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(shared(x), model(x))


class Own(nn.BatchNorm2d):
    """A batch norm with an activation behind it."""

    def forward(self, x):
        return super().forward(x).relu()


def test_norms_of_other_classes_keep_what_is_their_own():
    norm = Own(3)
    synchronise(norm, SHARED)
    assert isinstance(norm, Own)
    assert norm.eval()(torch.randn(2, 3, 4, 4)).min() == 0


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.SyncBatchNorm(4), "a SyncBatchNorm, exchanges its moments by itself"),
        (nn.LazyBatchNorm2d(), "a LazyBatchNorm2d, gets its class in the first call"),
        (nn.InstanceNorm2d(4, track_running_stats=True), "keeps running statistics of each"),
        (nn.BatchNorm2d(4, track_running_stats=False), "normalises by the batch in eval"),
    ],
)
def test_statistics_that_cannot_be_shared_are_refused_by_name(module, reason):
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Sequential(module))
    with pytest.raises(ValueError, match=f"'1.0', .*{reason}"):
        synchronise(model, SHARED)
    assert type(model[0]) is nn.BatchNorm2d, "left as it was"
    synchronise(model, ALONE)


def test_alone_nothing_is_reduced():
    model = ResNet(8, 4)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    before = [p.grad for p in model.parameters()]
    values = [gradient.clone() for gradient in before]
    reduce_gradients(model, ALONE)
    assert all(p.grad is kept for p, kept in zip(model.parameters(), before, strict=True))
    assert all(map(torch.equal, before, values))


# Joining.


def test_one_rank_needs_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(1) as world:
        assert world is ALONE
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("ranks", "started"), [(2, None), (2, "3"), (1, "2")])
def test_as_many_as_torchrun_started(monkeypatch, ranks, started):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if started is not None:
        monkeypatch.setenv("WORLD_SIZE", started)
    with pytest.raises(ValueError, match=f"ranks={ranks}, .*WORLD_SIZE={started or 1} processes"):
        joined(ranks).__enter__()


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda:1", "device='cuda:1' for several processes"), ("cuda", "process 99 of this machine")],
)
def test_each_process_needs_a_gpu_of_its_own(monkeypatch, device, message):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(ValueError, match=message):
        joined(2, device).__enter__()
