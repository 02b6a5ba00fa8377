"""A results folder of made-up trials that looks like a real one; for the tests of who reads it.

Not a test file: conftest files run it by its path.
"""

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from records.claim import Claim, Contrast
from records.plan import Plan
from records.record import Record, digest, pack_bits
from records.store import Store

NUM_EPOCHS = 8
NUM_TEST = 200
ENVIRONMENT = {"torch": "2.14.1", "device": "cpu", "threads": 1, "sources": {"a": "1"}}
MDCONV = "overconv.MDConv2d"

# label: layer's class and options, parameters in training, parameters deployed, MACs deployed
ARMS: dict[str, tuple[dict[str, Any] | None, int, int, int]] = {
    "plain": (None, 19_562, 19_562, 1_240_000),
    "wide-2": (None, 27_944, 27_944, 1_790_000),
    "gated-1": ({"class": MDCONV, "options": {"depth": 1}}, 23_910, 23_910, 1_250_000),
    "gated-2": ({"class": MDCONV, "options": {"depth": 2}}, 27_962, 27_962, 1_390_000),
    "gated-3": ({"class": MDCONV, "options": {"depth": 3}}, 33_140, 33_140, 1_520_000),
    "linear-2": (
        {"class": MDCONV, "options": {"depth": 2, "placement": []}},
        22_700,
        19_562,
        1_240_000,
    ),
    "linear-3": (
        {"class": MDCONV, "options": {"depth": 3, "placement": []}},
        25_838,
        19_562,
        1_240_000,
    ),
}


def configuration(label: str, study: str) -> dict[str, Any]:
    width = 9.625 if label == "wide-2" else 8
    layer = ARMS[label][0] if label in ARMS else {"class": "my.Layer", "options": {"arm": label}}
    return {
        "arm": {"layer": layer, "where": layer and "all_but_stem", "start": layer and "plain"},
        "network": {
            "class": "overconv.models.resnet.ResNet",
            "options": {"depth": 8, "width": width, "in_channels": 1, "num_classes": 10},
            "parameters": digest(label),
        },
        "data": {"name": "fashion_mnist", "fingerprint": digest(study), "num_test": NUM_TEST},
        "recipe": {"epochs": NUM_EPOCHS, "batch_size": 128, "lr": 0.1, "version": 1},
    }


def make_plan(labels: Sequence[str] = tuple(ARMS), **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "name": "depth",
        "question": "Does depth inside a convolution help, or only the parameters it brings?",
        "preset": "reference",
        "baseline": labels[0],
        # Data of its own: studies that share trials would have to agree on what they gave.
        "arms": {label: configuration(label, changes.get("name", "depth")) for label in labels},
    }
    if "gated-2" in labels and "wide-2" in labels:
        fields["notes"] = {"wide-2": "control: the training parameters of gated-2"}
        fields["claims"] = [
            Claim(
                name="D1",
                wording="accuracy and cost move with the number of layers",
                direction="trend",
                contrasts=[
                    Contrast(arm="gated-2", against="gated-1"),
                    Contrast(arm="gated-2", against="wide-2"),
                ],
                margin=0.003,
            )
        ]
    return Plan(**{**fields, **changes})


def make_record(
    plan: Plan,
    label: str,
    block: int,
    accuracy: float | None,
    *,
    environment: Mapping[str, Any] = ENVIRONMENT,
    finished: float = 0.0,
) -> Record:
    """A trial of ``label``; ``accuracy`` None: it diverged after two epochs."""
    noise = random.Random(f"{label} {block}")
    num_epochs = 2 if accuracy is None else NUM_EPOCHS
    final = 0.1 if accuracy is None else accuracy
    rise = [final * (1 - 0.55 * math.exp(-0.75 * e)) for e in range(num_epochs)]
    validation = [min(1.0, a + noise.gauss(0, 0.006)) for a in rise]
    loss = [2.2 * (1 - a) + 0.02 * noise.random() for a in rise]
    whole = {**plan.arms[label], "block": block}
    training, deployed, macs = ARMS.get(label, (None, 1000, 1000, 100_000))[1:]
    num_correct = round(final * NUM_TEST)
    return Record(
        trial=digest(whole),
        stratum=digest(environment),
        configuration=whole,
        outcome="diverged" if accuracy is None else "finished",
        metrics={"test_accuracy": accuracy, "test_loss": accuracy and 2 * (1 - accuracy)},
        curves={
            "train_loss": loss if accuracy is not None else [2.3, float("nan")],
            "validation_accuracy": validation,
        },
        costs={
            "parameters_training": training,
            "parameters_deployed": deployed,
            "over_parameters": training - deployed,
            "macs_training": macs,
            "macs_deployed": macs,
            "flops_training": 2 * macs,
            "flops_deployed": 2 * macs,
        },
        correct=None if accuracy is None else pack_bits([i < num_correct for i in range(NUM_TEST)]),
        environment=dict(environment),
        times={
            "started": 1_790_000_000.0 + finished,
            "finished": 1_790_000_060.0 + finished,
            "seconds": 60.0,
            "commit": "0123456789abcdef",
            "host": "a-host",
        },
    )


def make_results(root: Path, accuracies: Mapping[str, Sequence[float | None]], **changes) -> Plan:
    """Publish a plan and a trial for each accuracy, blocks from 0; returns the plan."""
    store, plan = Store(root), make_plan(tuple(accuracies), **changes)
    store.save_plan(plan)
    for label, values in accuracies.items():
        for block, accuracy in enumerate(values):
            store.publish(make_record(plan, label, block, accuracy, finished=float(block)))
    return plan


def realistic(num_blocks: int = 6) -> dict[str, list[float]]:
    """Accuracies that move together in a block."""
    means = {
        "plain": 0.861,
        "wide-2": 0.874,
        "gated-1": 0.866,
        "gated-2": 0.881,
        "gated-3": 0.879,
        "linear-2": 0.858,
        "linear-3": 0.849,
    }
    noise = random.Random(0)
    shared = [noise.gauss(0, 0.006) for _ in range(num_blocks)]
    return {
        label: [round(mean + s + noise.gauss(0, 0.003), 4) for s in shared]
        for label, mean in means.items()
    }
