"""What a study may say, and the studies of this folder."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import overconv
from ablations import files
from ablations.presets import MODELS
from ablations.study import Arm, SameParameters, Study
from ablations.trial import resolve
from analysis.agenda import AGENDA
from overconv import MDConv2d
from overconv.operators.base import OverConv2d
from overconv.surgery import convert, rebuild_convs
from records.claim import Claim, Contrast

ARMS = {"plain": Arm(), "gated": Arm(MDConv2d)}


def study(**changes) -> Study:
    return Study(**{"name": "s", "question": "?", "baseline": "plain", "arms": ARMS, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "other"}, "baseline: no arm 'other'; arms: plain, gated"),
        ({"name": "a b"}, "study name 'a b'"),
        ({"notes": {"x": "?"}}, "note: no arm 'x'"),
        ({"arms": {"plain": nn.Conv2d}}, "arm 'plain' is"),
        ({"arms": {**ARMS, "w": Arm(model={"width": SameParameters("q")})}}, "arm w: no arm 'q'"),
        (
            {
                "claims": (
                    Claim(
                        name="C",
                        wording="?",
                        direction="greater",
                        margin=0.01,
                        contrasts=[Contrast(arm="gated", against="none")],
                    ),
                )
            },
            "claim C: no arm 'none'",
        ),
        ({"arms": {**ARMS, "a,b": Arm()}}, "label 'a,b'; allowed"),
        ({"factors": {"f": {"x": ["plain"], "y": ["q"]}}}, "factor f: no arm 'q'"),
        ({"factors": {"f": {"x": ["plain"], "y": []}}}, "allowed: one a combination"),
    ],
)
def test_a_study_names_its_own_arms(changes, message):
    with pytest.raises(ValueError, match=message):
        study(**changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": lambda *a: None}, "a lambda cannot be found"),
        ({"layer": partial(lambda *a: None)}, "a lambda cannot be found"),
        ({"where": lambda name, conv: True}, "a lambda cannot be found"),
        ({"start": "same"}, "start='same'; allowed: 'own', 'plain'"),
        ({"layer": "MDConv2d"}, "cannot be recorded"),
        ({"layer": partial(MDConv2d, dpeth=2)}, "dpeth"),
    ],
)
def test_an_arm_can_be_recorded(arguments, message):
    with pytest.raises(ValueError, match=message):
        Arm(**arguments)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (Arm(model={"widht": 3}), "arm 'new'.*widht"),
        (Arm(recipe={"leraning_rate": 3}), "recipe has no 'leraning_rate'; allowed: .*batch_size"),
        (Arm(recipe={"threads": 2}), "threads belong to the stratum"),
        (Arm(recipe={"epochs": 0}), "arm 'new'.*epochs"),
        (Arm(MDConv2d, where="everywhere"), "arm 'new'.*everywhere"),
        (Arm(partial(MDConv2d, depth=0)), "arm 'new'.*depth"),
        (Arm(partial(MDConv2d, middle_channels=1)), "arm 'new'.*middle_channels"),
        (Arm(model={"width": SameParameters("new")}), "wait for one another's parameters"),
        (Arm(model={"num_classes": SameParameters("gated")}), "arm 'new'"),
    ],
)
def test_an_arm_that_cannot_be_built_is_named(arm, message, setting):
    with pytest.raises(ValueError, match=message):
        resolve(study(arms={**ARMS, "new": arm}), setting)


class Doubled(MDConv2d):
    def start_from(self, weight, bias):
        super().start_from(2 * weight, bias)


class Halved(MDConv2d):
    def to_inference(self):
        folded = super().to_inference()
        with torch.no_grad():
            folded.weights[0].mul_(0.5)
        return folded


class Uncounted(MDConv2d):
    def macs(self, image):
        return OverConv2d.macs(self, image)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Doubled, "arm 'new': Doubled.from_conv2d.. does not compute what the convolution"),
        (Halved, "arm 'new': Halved.to_inference.. does not compute what it computes"),
        (Uncounted, "arm 'new': NotImplementedError: Uncounted defines no macs"),
    ],
)
def test_a_layer_is_held_to_its_word(layer, message, setting):
    with pytest.raises(ValueError, match=message):
        resolve(study(arms={**ARMS, "new": Arm(layer)}), setting)


@pytest.mark.parametrize("name", ["attention_placement", "depth", "operators", "scattering"])
def test_the_studies_resolve(name, setting):
    assert name in files.names()
    cells = resolve(files.load(name), setting)
    identities = {cell.trial(block=0) for cell in cells.values()}
    assert len(identities) == len(cells), "two arms are one"


def test_only_studies_are_listed():
    assert "study" not in files.names()
    assert "trial" not in files.names()


def test_studies_share_their_plain_baseline(setting):
    trials = {resolve(files.load(n), setting)["plain"].trial(0) for n in ("depth", "scattering")}
    assert len(trials) == 1


@pytest.mark.parametrize(
    ("name", "claim", "model", "exceptions"),
    [
        ("scattering", "C1", None, set()),
        ("scattering", "C1", "resnet8_stride2", set()),
        ("scattering", "C1", "resnet20", set()),
        ("operators", "C6", None, set()),
        ("operators", "C6", "resnet8_stride2", set()),
        ("operators", "C6", "resnet20", {"weightnetconv"}),  # as its docstring says
    ],
)
def test_what_is_claimed_to_have_fewer_parameters_has(name, claim, model, exceptions, setting):
    """Of every pair, by exact count, at the sizes that the study is run with."""
    loaded = files.load(name)
    [claimed] = [c for c in loaded.claims if c.name == claim]
    assert claimed.fewer == "parameters_training"
    build = partial(setting.model if model is None else MODELS[model], in_channels=1)

    def count(label: str) -> int:
        arm = loaded.arms[label]
        network = rebuild_convs(
            build(num_classes=10),
            arm.where,
            lambda _, conv: convert(arm.layer, conv, preserve=False),
        )
        return sum(p.numel() for p in network.parameters())

    found = {c.against for c in claimed.contrasts if count(c.arm) >= count(c.against)}
    assert found == exceptions


def test_the_claims_of_the_agenda_are_declared_where_it_says():
    declared = {
        claim.name: (claim.wording, name)
        for name in ("attention_placement", "depth", "operators", "scattering", "starts")
        for claim in files.load(name).claims
    }
    expected = {e.name: (e.wording, e.judged_by) for e in AGENDA if e.judged_by != "benchmark"}
    assert declared == expected


def test_every_layer_of_the_library_is_an_arm_of_operators():
    arms = files.load("operators").arms
    layers = {arm.layer for arm in arms.values()} - {nn.Conv2d}
    assert layers == {getattr(overconv, name) for name in dir(overconv) if name.endswith("Conv2d")}


def test_the_evidence_of_claims_is_there():
    root = Path(__file__).parents[2]
    for name in files.names():
        for claim in files.load(name).claims:
            for evidence in claim.evidence:
                path, _, test = evidence.where.partition("::")
                if test:
                    assert f"def {test}(" in (root / path).read_text(), evidence


@pytest.mark.parametrize("like", ["gated"])
def test_a_widened_control_is_nearest_in_parameters(like, setting):
    from ablations.trial import build_network

    arms = {**ARMS, "wide": Arm(model={"width": SameParameters(like)})}
    cells = resolve(study(arms=arms), setting)

    def count(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    target = count(build_network(cells[like], 0))
    width = cells["wide"].configuration["network"]["options"]["width"]
    here = abs(count(build_network(cells["wide"], 0)) - target)
    around = [cells["wide"].reference(width=width + step / 64) for step in range(-64, 65)]
    assert here == min(abs(count(network) - target) for network in around)
    assert here < 0.02 * target
