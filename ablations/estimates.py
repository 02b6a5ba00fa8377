"""What a trial takes: from one step of it on made images, and from its counted cost."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ablations.identity import unwrap
from ablations.trial import Cell, build_network
from overconv.counters import count
from overconv.training.data import Dataset
from overconv.training.inputs import DataSource, Shape
from overconv.training.loop import train
from overconv.training.recipe import Recipe
from overconv.training.splits import num_trained
from overconv.valueless import emptied, without_values
from records.record import Record, digest, pack_bits

# Multiply-accumulates of the forward pass that one image of a step may take: enough to fill a
# core, and a second or two of it.
STEP_MACS = 2e9
STEPS = 3  # where a step is the whole batch, of which the fastest counts
BACKWARD = 2  # its work, in forward passes
OPTIMIZER_COPIES = {"sgd": 1, "adamw": 2}
CHECKPOINTS_AT_ONCE = 3  # two are kept, and one is written


@dataclass(frozen=True)
class Gpu:
    """A model of a GPU: products and traffic one after the other, or the host if that is slower.

    Attributes:
        name: For people.
        flops: Operations a second that convolutions reach, by the recipe's ``amp``.
        bandwidth: Bytes a second.
        passes: Times that what is alive at the peak of a step is moved in it.
        dispatch: Seconds that the host takes to start an operation.
    """

    name: str
    flops: Mapping[str, float]
    bandwidth: float
    passes: float
    dispatch: float

    def seconds(self, step: "Step", macs: int, amp: str) -> float:
        """Of a step whose images take ``macs`` multiply-accumulates each, forward."""
        products = 2 * macs * (1 + BACKWARD) * step.num_images / self.flops[amp]
        traffic = step.activations * self.passes / self.bandwidth
        return max(products + traffic, step.operations * self.dispatch)


# Half the peak of its tensor cores (312 TFLOP/s in 16 bits, 156 in TF32, which torch's convolutions
# use unless told otherwise) and all its bandwidth, from NVIDIA's data sheet. ``passes`` is set so
# that ResNet-50 in 16 bits takes what NVIDIA publishes, 2,470 images a second
# (DeepLearningExamples, ResNet50 v1.5). Small networks wait for the host: of one image in 16 bits,
# NVIDIA's inference takes 12.8 ms for 337 operations on the host of 2017, 38 us each.
A100 = Gpu(
    name="A100",
    flops={"none": 78e12, "bfloat16": 156e12, "float16": 156e12},
    bandwidth=2.04e12,
    passes=11.3,
    dispatch=25e-6,
)


@dataclass(frozen=True)
class Step:
    """What a step of one rank takes, counted without computing it.

    Attributes:
        num_images: Of its batch.
        operations: Dispatched in both passes.
        peak: Bytes alive at once at most, parameters and gradients included.
        activations: Those of them that are neither.
    """

    num_images: int
    operations: int
    peak: int
    activations: int


@dataclass(frozen=True)
class Estimate:
    """What one trial takes.

    Attributes:
        seconds: On the device of the step.
        gpu_seconds: On an A100.
        memory: Bytes of the model, its training state, its batch and the data set; of one rank.
        checkpoints: Bytes that its checkpoints take at most, until its record is out.
        record: Bytes of its record.
    """

    seconds: float
    gpu_seconds: float
    memory: int
    checkpoints: int
    record: int


def estimate(cell: Cell, dataset: DataSource, device: str = "cpu") -> Estimate:
    """Train ``cell`` for a step or a few on made images, and scale up what that took."""
    recipe, macs = cell.recipe, cell.costs["macs_training"]
    shape, network = dataset.input_shape(recipe), build_network(cell, block=0)
    step = count_step(network, shape, recipe)
    few = min(step.num_images, max(2, int(STEP_MACS // macs)))
    num_images = step.num_images if device.startswith("cuda") else few
    seconds = measure_step(cell, shape, num_images, device)
    # In images that a step trains on; one that is scored is a forward pass.
    left = num_trained(dataset.num_train, recipe)
    trained = left // recipe.batch_size * recipe.batch_size
    scored = recipe.epochs * recipe.num_validation + dataset.num_test
    passes = (recipe.epochs * trained + scored / (1 + BACKWARD)) / recipe.ranks
    kept = state_bytes(network, recipe)
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    return Estimate(
        seconds=seconds * passes,
        gpu_seconds=A100.seconds(step, macs, recipe.amp) / step.num_images * passes,
        memory=step.peak + kept - weights + data_bytes(dataset, recipe),
        checkpoints=CHECKPOINTS_AT_ONCE * kept,
        record=record_bytes(cell, dataset),
    )


def count_step(network: nn.Module, shape: Shape, recipe: Recipe) -> Step:
    """The forward and backward pass of one rank's part of a batch."""
    num_images = recipe.batch_size // recipe.ranks
    amp = torch.float32 if recipe.amp == "none" else getattr(torch, recipe.amp)
    with without_values():
        empty = emptied(network).train()
        images, labels = torch.empty(num_images, *shape), torch.zeros(num_images, dtype=torch.long)

        def step() -> None:
            with torch.autocast("cpu", amp, enabled=recipe.amp != "none"):
                logits = empty(images)
            F.cross_entropy(logits.float(), labels).backward()

        counted = count(step)
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    gradients = sum(parameter.nbytes for parameter in network.parameters())
    activations = max(0, counted.peak_bytes - weights - gradients)
    return Step(num_images, counted.operations, counted.peak_bytes, activations)


def state_bytes(network: nn.Module, recipe: Recipe) -> int:
    """Bytes of what a checkpoint holds: model, optimiser, average."""
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    parameters = sum(parameter.nbytes for parameter in network.parameters())
    average = weights if recipe.ema else 0
    return weights + parameters * OPTIMIZER_COPIES[recipe.optimizer] + average


def measure_step(cell: Cell, shape: Shape, num_images: int, device: str = "cpu") -> float:
    """Seconds of one image in a step of ``cell``, one of the training itself.

    On the CPU they are those of this process, however busy the machine is.
    """
    is_whole = num_images * cell.recipe.ranks == cell.recipe.batch_size
    num_steps = STEPS if is_whole else 1
    dataset = _made(shape, num_images * num_steps, cell)
    recipe = dataclasses.replace(
        cell.recipe, epochs=1, batch_size=num_images, num_validation=0, num_train=0,
        warmup_epochs=0, ranks=1, image_size=None, resized_crop=0.0,
    )  # fmt: skip
    clock = _Clock(device, recipe.threads)
    network = build_network(cell, block=0).to(device)
    train(network, dataset, recipe, block=0, device=device, stop=clock)
    return clock.fastest() / num_images


class _Clock:
    """Asked before each step and each evaluation whether to stop: notes when that was."""

    def __init__(self, device: str, threads: int) -> None:
        self.device, self.threads, self.times = device, threads, list[float]()

    def __call__(self) -> bool:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
            self.times.append(time.perf_counter())
        else:
            self.times.append(time.process_time() / self.threads)
        return False

    def fastest(self) -> float:
        """The shortest step; the last time is of the test, behind the evaluation."""
        steps = self.times[:-1]
        return min(later - earlier for earlier, later in zip(steps, steps[1:], strict=False))


def _made(shape: Shape, num_images: int, cell: Cell) -> Dataset:
    """Gray images of every class in turn."""
    num_classes = unwrap(cell.reference)[2]["num_classes"]
    images = torch.full((num_images, *shape), 100, dtype=torch.uint8)
    labels = torch.arange(num_images) % num_classes
    return Dataset("made", images, labels, images[:1], labels[:1], num_classes, "made")


def data_bytes(dataset: DataSource, recipe: Recipe) -> int:
    """Bytes of a data set in memory, while it is trained on; 0 if its files are read as needed."""
    channels, high, wide = dataset.image_shape
    padding = recipe.crop_padding
    stored = channels * high * wide
    cropped = channels * (high + 2 * padding) * (wide + 2 * padding) if stored else 0
    # As it was read, split by the block, and what is trained on padded.
    trained = num_trained(dataset.num_train, recipe)
    split = (trained + recipe.num_validation) * stored + trained * cropped
    return (dataset.num_train + dataset.num_test) * stored + split


def record_bytes(cell: Cell, dataset: DataSource) -> int:
    """Bytes of the record that ``cell`` will leave, of figures with all their digits."""
    figure, epochs = 1 / 3, cell.recipe.epochs
    curves = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr")
    configuration = {**cell.configuration, "block": 0}
    record = Record(
        trial=digest(configuration),
        stratum=digest("made"),
        configuration=configuration,
        outcome="finished",
        metrics=dict.fromkeys(curves, figure),
        curves={name: [figure] * epochs for name in (*curves, "grad_norm")},
        costs=cell.costs,
        correct=pack_bits([True] * dataset.num_test),
        environment={},
        times={"finished": figure, "epochs": {n: [figure] * epochs for n in ("train", "evaluate")}},
    )
    return len(record.model_dump_json())
