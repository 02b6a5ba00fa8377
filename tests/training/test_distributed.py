"""Several processes make of a batch what one does: real ones, which torchrun starts."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmark.variants import layers

HERE = Path(__file__).parent
CLOSE = 1e-10  # in double precision: far below the 1e-6 that is promised, far above rounding


def start(script: str, *arguments: object, torchrun: int = 0) -> None:
    """Run a script beside this file; one that fails fails the test."""
    options = ["--standalone", f"--nproc-per-node={torchrun}"]
    command = ["-m", "torch.distributed.run", *options] if torchrun else []
    done = subprocess.run(
        [sys.executable, *command, HERE / script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8000:]


def found_by(path: Path, ranks: int) -> list[dict]:
    return [torch.load(f"{path}.{ranks}.{rank}", weights_only=True) for rank in range(ranks)]


# Layers and networks, step by step.


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "found"
    start("ranks.py", path, "2:some,layers,defects", "3:some")
    return path


@pytest.fixture(params=[2, 3])
def ranks(request, files):
    return found_by(files, request.param)


def apart(cases: dict) -> dict:
    """The cases that are not as with one process, or not the same on all ranks."""
    return {
        name: case
        for name, case in cases.items()
        if not (case["difference"] < CLOSE and case["same bits"])
    }


def test_ranks_are_as_one_process(ranks):
    """Losses, accuracies, gradients, weights and statistics, of four steps."""
    assert {"several layers", "resnet", "ODConv2d, single values"} <= ranks[0]["some"].keys()
    assert apart(ranks[0]["some"]) == {}


def test_layers_are_as_in_one_process(files):
    cases = found_by(files, 2)[0]["layers"]
    assert cases.keys() == {layer.__name__ for layer in layers()}
    assert apart(cases) == {}


@pytest.mark.slow
def test_all_variants_are_as_in_one_process(tmp_path):
    path = tmp_path / "found"
    start("ranks.py", path, "2:all", "3:layers")
    cases = found_by(path, 2)[0]["all"]
    assert len(cases) > 150
    assert apart(cases) == {}
    assert apart(found_by(path, 3)[0]["layers"]) == {}


def test_planted_defects_are_caught(files):
    defects = found_by(files, 2)[0]["defects"]
    assert len(defects) == 20
    missed = [name for name, case in defects.items() if case["difference"] < 1e4 * CLOSE]
    assert missed == []


def test_what_ranks_tell_each_other(ranks):
    size = len(ranks)
    for rank, found in enumerate(ranks):
        told = SimpleNamespace(**found["exchanges"])
        assert told.mean.tolist() == [(size - 1) / 2] * 2
        assert not told.mean.requires_grad
        assert told.stack.tolist() == [[[True, False], [r > 0, r > 1]] for r in range(size)]
        assert told.stack.dtype == torch.bool
        assert told.scalar.tolist() == list(range(size))
        assert told.scalar.dtype == torch.bfloat16
        expected = torch.arange(6.0).view(2, 3).t()
        assert torch.equal(told.transposed, torch.stack([expected + r for r in range(size)]))
        rows = [10 * r + row for r in range(size) for row in range(2 * r)]
        assert told.gather.tolist() == [[row] * 3 for row in rows]
        assert told.none.shape == (0, 2)
        assert told.bools.tolist() == [k % 2 == 0 for r in range(size) for k in range(r + 1)]
        assert told.any == [False, *[True] * size]
        assert told.world == (rank, size)


# The loop.


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def loops(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("loops") / "found"
    start("ranks_loop.py", path, torchrun=request.param)
    return found_by(path, request.param)


def bits(found: dict) -> dict:
    """All that comes of a training but when it was stopped; NaNs are equal."""
    kept = {name: found[name] for name in ("outcome", "metrics", "curves", "diverged_at")}
    state = {name: value.numpy().tobytes() for name, value in found["state"].items()}
    correct = None if found["correct"] is None else found["correct"].tolist()
    return {"told": repr(kept), "state": state, "correct": correct}


@pytest.mark.parametrize("name", ["plain", "all"])
def test_the_loop_trains_as_one_process(loops, name):
    """In double precision, but for the losses of the steps, which are kept in single."""
    one, ranks = loops[0][name]["alone"], loops[0][name]["together"]
    for key, value in one["state"].items():
        torch.testing.assert_close(ranks["state"][key], value, rtol=CLOSE, atol=CLOSE)
    assert torch.equal(ranks["correct"], one["correct"])
    assert len(one["correct"]) == 71
    assert 0.4 < one["correct"].double().mean() < 0.98
    assert ranks["curves"].keys() == one["curves"].keys()
    for key, curve in one["curves"].items():
        within = CLOSE if key.startswith("validation") or key == "lr" else 1e-6
        np.testing.assert_allclose(ranks["curves"][key], curve, rtol=within, err_msg=key)
    assert ranks["metrics"]["test_loss"] == pytest.approx(one["metrics"]["test_loss"], rel=CLOSE)


@pytest.mark.parametrize("name", ["plain", "all", "float16", "diverging"])
def test_stopped_anywhere_ranks_end_with_the_same_bits(loops, name):
    together, stopped = loops[0][name]["together"], loops[0][name]["stopped"]
    assert bits(stopped) == bits(together)
    assert stopped["resumed"] == stopped["stops"]
    assert len(stopped["stops"]) >= 3
    assert together["resumed"] == []


def test_all_ranks_end_with_the_same_bits(loops):
    for name, first in loops[0].items():
        for other in loops[1:]:
            assert bits(other[name]["together"]) == bits(first["together"]), name
            assert other[name]["stopped"]["stops"] == first["stopped"]["stops"], name


def test_a_divergence_is_one_on_all_ranks(loops):
    for found in loops:
        assert found["diverging"]["together"]["outcome"] == "diverged"
        assert (
            found["diverging"]["together"]["diverged_at"]
            == (found["diverging"]["alone"]["diverged_at"])
        )
