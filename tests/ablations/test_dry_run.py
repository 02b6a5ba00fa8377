"""A dry run: every arm built and tried, what it takes told, and nothing written."""

import dataclasses
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from torch import nn

from ablations import dry_run
from ablations import setting as settings
from ablations.cli import main
from ablations.dry_run import find_data, lines
from ablations.estimates import Estimate
from ablations.schedule import Job, Schedule
from ablations.study import Arm, Study
from ablations.trial import resolve
from overconv.training.data import Outline
from overconv.training.imagenet import ImageFolders

ROOT = Path(__file__).parents[2]
# Arms of so few channels that a step at 224 pixels is a matter of a moment.
THIN = """
from functools import partial

from ablations.study import Arm, Study
from overconv import MDConv2d

STUDY = Study(
    name="thin",
    question="Does anything run?",
    baseline="plain",
    arms={
        "plain": Arm(model={"width": 1}),
        "gated": Arm(partial(MDConv2d, depth=2), model={"width": 1}),
    },
)
"""


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """No place in which a data set could be found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OVERCONV_DATA", raising=False)


@pytest.fixture
def thin(tmp_path):
    path = tmp_path / f"thin_{tmp_path.name.replace('-', '_')}.py"
    path.write_text(THIN)
    return path


@pytest.mark.parametrize(
    ("dataset", "shape"),
    [("cifar10", "3 x 32 x 32"), ("cifar100", "3 x 32 x 32"), ("imagenet", "3 x 224 x 224")],
)
def test_paper_is_planned_without_any_file(dataset, shape, thin, tmp_path, no_data, capsys):
    arguments = ["run", str(thin), "--preset", "paper", "--dataset", dataset, "--dry-run"]
    assert main([*arguments, "--results", str(tmp_path / "results")]) == 0
    out = capsys.readouterr().out
    assert f"images of {shape}" in out
    assert f"the files of {dataset} are not here" in out
    for arm in ("plain", "gated"):
        assert re.search(rf"^{arm} +[\d,]+ +[\d,]+ +0 +10 ", out, re.MULTILINE)
    assert "\n20 trials, in all about" in out
    for said in ("core-hours here", "GPU-hours of an A100", "checkpoints while 1 at a time"):
        assert said in out
    assert ("processes that decode" in out) == (dataset == "imagenet")
    assert "memory of a worker" in out and out.endswith("nothing was trained or written\n")
    assert not (tmp_path / "results").exists()


def test_a_run_without_the_files_is_refused(thin, tmp_path, no_data, capsys):
    arguments = ["run", str(thin), "--preset", "paper", "--dataset", "cifar10"]
    assert main([*arguments, "--results", str(tmp_path / "results")]) == 2
    assert "cifar10 is in none of" in capsys.readouterr().err


def test_data_that_are_here_are_used(tmp_path, no_data):
    assert not isinstance(find_data("digits"), Outline)
    assert isinstance(find_data("cifar100"), Outline)
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "train.bin").write_bytes(b"cut short")
    with pytest.raises(ValueError, match="cut short or corrupt|is missing"):
        find_data("cifar100", tmp_path)  # not taken for absent


def test_sums_are_over_what_is_to_do(setting, monkeypatch):
    """By estimates that are made up: only arms with trials left count."""
    made = {
        "plain": Estimate(3600.0, 360.0, 2**30, 10**6, 1000),
        "deep": Estimate(7200.0, 720.0, 2**31, 2 * 10**6, 3000),
        "done": Estimate(1e9, 1e9, 2**40, 10**12, 10**9),
    }
    monkeypatch.setattr(dry_run, "estimate", lambda cell, data, device: made[cell.label])
    monkeypatch.setattr(dry_run.memory, "used", lambda: 2**29)
    monkeypatch.setattr(dry_run.memory, "available", lambda: 2**33)
    study = Study(name="s", question="?", baseline="plain", arms=dict.fromkeys(made, Arm()))
    recipe = dataclasses.replace(setting.recipe, ranks=2, threads=3)
    setting = dataclasses.replace(setting, recipe=recipe)
    work = Schedule(
        todo=[Job("plain", 0), Job("plain", 1), Job("deep", 1)],
        done=[Job("done", 0), Job("done", 1)],
        elsewhere={},
    )
    found = list(lines(resolve(study, setting), work, setting, "cpu", 4))
    assert re.search(r"plain .* 0 +2 +60 min +6 min +1.00 GiB$", found[2])
    assert re.search(r"done .* 2 +0 ", found[4])
    # 2 + 2 hours, of two processes of three threads.
    assert found[5].startswith("3 trials, in all about 24 core-hours here")
    assert "about 0.8 GPU-hours of an A100" in found[5]
    assert found[6].startswith("disk: 0.005 MB of records, and 8 MB of checkpoints while 4")
    assert found[7].startswith("memory of a worker: 2.50 GiB, of which 2.00 GiB are the GPU's")
    assert found[7].endswith("8.00 GiB are available here")


class Alpha(nn.AlphaDropout):
    """A dropout that no training can key."""


def test_an_arm_that_could_not_be_trained_is_named(setting):
    study = Study(name="s", question="?", baseline="plain", arms={"plain": Arm()})
    cells = resolve(study, setting)
    plain = cells["plain"]

    def with_alpha(**options):
        network = plain.reference.func(**options)
        network.add_module("alpha", Alpha())
        return network

    cell = dataclasses.replace(plain, reference=partial(with_alpha, **plain.reference.keywords))
    work = Schedule(todo=[Job("plain", 0)], done=[], elsewhere={})
    with pytest.raises(ValueError, match=r"arm 'plain': 'alpha' is a Alpha; allowed: Dropout"):
        list(lines({"plain": cell}, work, setting, "cpu", 1))


def test_whoever_has_read_enough_sees_no_traceback(thin, tmp_path, no_data):
    command = f"{sys.executable} -m ablations run {thin} --dry-run --results {tmp_path / 'r'}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ}, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("thin: Does anything run?")
    assert done.stderr == ""


def test_what_decodes_files_belongs_to_the_stratum(setting, monkeypatch):
    monkeypatch.setattr(settings, "describe_stratum", lambda **_: {"torch": "2"})
    monkeypatch.setattr(settings, "modules_of", lambda _: [])
    monkeypatch.setattr(settings, "source_digest", lambda *_: {})
    study = Study(name="made", question="Which?", baseline="plain", arms={"plain": Arm()})
    assert settings.Opened(study, setting, "cpu").environment == {"torch": "2"}
    files = ImageFolders("imagenet", None, None, 3, "made")
    opened = settings.Opened(study, dataclasses.replace(setting, dataset=files), "cpu")
    assert opened.environment == {"torch": "2", "decoder": files.decoder}
