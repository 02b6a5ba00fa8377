"""Networks and batches that ``ranks.py`` trains with. Not a test file."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.variants import Variant, randomise, variants
from overconv.models.resnet import ResNet
from overconv.operators.dbb import DBBConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.operators.odconv import ODConv2d
from overconv.training.world import World

BATCH = 6  # divides by two and by three
DOUBLE: dict[str, Any] = {"dtype": torch.float64}

Build = Callable[[], nn.Module]
Plant = Callable[[nn.Module, World], AbstractContextManager[object] | None]


@dataclass(frozen=True)
class Case:
    """A network, the same at each call; the shape of its global batch; a defect on all ranks."""

    build: Build
    shape: tuple[int, ...] = (BATCH, 4, 6, 5)
    defect: Plant = lambda model, world: None


# Networks.


class Around(nn.Module):
    """A layer between a norm and a classifier, so that its gradient to the input matters."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(4, 4, 1, bias=False, **DOUBLE), norm
        self.layer, self.dropout = layer, nn.Dropout(0.3)
        width = getattr(layer, "out_channels", 4)
        self.head = nn.Linear(width, 3, **DOUBLE)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.layer(self.norm(self.stem(x)))).relu()
        return self.head(y.mean((2, 3)))


def around(layer: Build, norm: Build | None = None) -> nn.Module:
    between = nn.BatchNorm2d(4, **DOUBLE) if norm is None else norm()
    network: nn.Module = randomise(Around(layer(), between))
    return network


class Activated(nn.BatchNorm2d):
    """A batch norm that has a forward of its own, with an activation, as those of timm do."""

    def forward(self, x: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        y = F.batch_norm(x, *statistics, self.weight, self.bias, self.training, 0.2, self.eps)
        return F.silu(y)


def layer(name: str, **options: Any) -> Build:
    [kind] = {variant.layer for variant in variants() if variant.layer.__name__ == name}
    return partial(kind, 4, 6, 3, padding=1, **options, **DOUBLE)


def several_layers() -> nn.Module:
    """Dropout of both kinds, batch norms, gates of a batch and in training, diverse branches."""
    parts: list[nn.Module] = []
    for made in (
        MAConv2d(4, 6, 3, padding=1, middle="norm+gate", **DOUBLE),
        MDConv2d(6, 6, 3, padding=1, when="batch", **DOUBLE),
        MDConv2d(6, 6, 3, padding=1, when="training", **DOUBLE),
        DBBConv2d(6, 6, 3, padding=1, **DOUBLE),
        ODConv2d(6, 6, 3, padding=1, **DOUBLE),
    ):
        parts += [made, nn.Sequential(nn.BatchNorm2d(6, **DOUBLE), nn.ReLU(), nn.Dropout2d(0.2))]
    tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(6, 3, **DOUBLE)
    network: nn.Module = randomise(nn.Sequential(*parts, *tail))
    return network


def resnet() -> nn.Module:
    return ResNet(8, 4, num_classes=3, in_channels=4).double()


def volumes() -> nn.Module:
    """Norms of other dimensions: of vectors, of sequences and of volumes."""
    return nn.Sequential(
        nn.BatchNorm1d(4, **DOUBLE),
        nn.Unflatten(2, (3, 2, 5)),
        nn.BatchNorm3d(4, **DOUBLE),
        nn.Flatten(),
        nn.BatchNorm1d(120, **DOUBLE),
        nn.Dropout(0.5),
        nn.Linear(120, 3, **DOUBLE),
    )


def trains(variant: Variant) -> bool:
    """Whether the form is one in which the layer trains, see their errors."""
    try:
        variant.build()(variant.images())
    except ValueError as error:
        assert "while training" in str(error)
        return False
    return True


class Sometimes(nn.Module):
    """Has a parameter that only images of the first rows reach, and one that none does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.never = (nn.Parameter(torch.ones(4, **DOUBLE)) for _ in range(2))
        self.head = nn.Linear(4, 3, **DOUBLE)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        marked = x[:, 0] > 0
        if marked.any():
            x = torch.where(marked[:, None], x * self.first, x)
        return self.head(x)


def some(ranks: int) -> Iterator[tuple[str, Case]]:
    yield "several layers", Case(several_layers)
    yield "resnet", Case(resnet, (BATCH, 4, 8, 8))
    yield "other dimensions", Case(volumes, (BATCH, 4, 30))
    yield "parameters that some ranks miss", Case(Sometimes, (BATCH, 4, 1, 1))
    norm = partial(nn.BatchNorm2d, 4, **DOUBLE)
    for name, kind in {
        "cumulative": partial(norm, momentum=None),
        "without parameters": partial(norm, affine=False),
        "slow": partial(norm, momentum=0.01, eps=0.1),
        "activated": partial(Activated, 4, **DOUBLE),
    }.items():
        yield f"norm, {name}", Case(partial(around, nn.Identity, kind))
    for name in ("ODConv2d", "DCDConv2d"):
        single = (ranks, 4, 1, 1)  # one value a channel in each process
        yield f"{name}, single values", Case(partial(around, layer(name)), single)


def layers(ranks: int) -> Iterator[tuple[str, Case]]:
    """Each layer as it is by default."""
    for variant in variants():
        if not (variant.options or variant.geometry):
            yield str(variant), of_variant(variant)


def every_variant(ranks: int) -> Iterator[tuple[str, Case]]:
    """Each layer with each option, in each geometry."""
    for variant in filter(trains, variants()):
        yield str(variant), of_variant(variant)


def of_variant(variant: Variant) -> Case:
    return Case(partial(around, partial(variant.build, **DOUBLE)))
