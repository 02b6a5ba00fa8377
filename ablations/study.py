"""A study is a value: its question, arms, baseline and claims, decided before the run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from ablations.identity import describe, describe_layer
from records.claim import Claim
from records.grid import Factors, grid
from records.plan import check_label

Layer = Callable[..., nn.Module]
Where = str | Callable[[str, nn.Conv2d], bool]
STARTS = ("own", "plain")


@dataclass(frozen=True)
class Arm:
    """One way to build and train the network of a study.

    Args:
        layer: ``nn.Conv2d`` (the plain network), or a layer class or ``partial`` of one that
            takes the place of the convolutions that ``where`` selects.
        where: As in :func:`overconv.replace_convs`.
        start: ``"plain"``: the layer computes what the convolution it replaces computed, so that
            arms differ only in how they learn. ``"own"``: its own initialisation.
        model: Options of the network that this arm changes, for instance ``{"width": 12}``.
        recipe: Fields of the recipe that this arm changes.

    Raises:
        ValueError: A value that no record could name, for instance a lambda.
    """

    layer: Layer = nn.Conv2d
    where: Where = "all_but_stem"
    start: Literal["own", "plain"] = "plain"
    model: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ValueError(f"start={self.start!r}; allowed: {', '.join(map(repr, STARTS))}")
        object.__setattr__(self, "model", MappingProxyType(dict(self.model)))
        object.__setattr__(self, "recipe", MappingProxyType(dict(self.recipe)))
        describe_layer(self.layer)
        describe((self.where, self.model, self.recipe))

    @property
    def is_plain(self) -> bool:
        """Whether nothing is replaced; ``where`` and ``start`` then have no meaning."""
        return self.layer is nn.Conv2d


@dataclass(frozen=True)
class SameParameters:
    """A value for an arm's ``model``: the number at which it has as many parameters as ``arm``.

    ``Arm(model={"width": SameParameters("gated-2")})`` is the plain network, widened until its
    training parameters are as near as they get to those of the arm ``gated-2``. Resolved for the
    network of the run, before identity is taken: a record holds the number.
    """

    arm: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """One question, and the arms that answer it.

    Args:
        name: One word; names the plan in a results folder.
        question: What is asked, what is varied, what is held.
        arms: By label. A label is a name for people: identity does not depend on it.
        baseline: The arm that the others are compared with.
        claims: What is to be judged, with margins, before any arm has been trained.
        looks: Numbers of blocks at which claims may be judged; they share the 5 %.
        notes: A remark on an arm, by label, for the tables.
        factors: Arms that form a grid: the labels of each level, by factor. Gives main effects and
            interactions.

    Raises:
        ValueError: ``baseline``, a claim, a note, a factor or a :class:`SameParameters` names no
            arm; a label cannot be shown; ``factors`` are no grid.
    """

    name: str
    question: str
    arms: Mapping[str, Arm]
    baseline: str
    claims: tuple[Claim, ...] = ()
    looks: tuple[int, ...] = (10,)
    notes: Mapping[str, str] = field(default_factory=dict)
    factors: Factors = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"study name {self.name!r}; allowed: letters, digits, underscores")
        object.__setattr__(self, "arms", MappingProxyType(dict(self.arms)))
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))
        object.__setattr__(self, "factors", MappingProxyType(dict(self.factors)))
        for label, arm in self.arms.items():
            check_label(label)
            if not isinstance(arm, Arm):
                raise ValueError(f"arm {label!r} is {arm!r}; allowed: an Arm")
        named = [("baseline", self.baseline), *(("note", label) for label in self.notes)]
        named += [
            ("claim " + claim.name, label)
            for claim in self.claims
            for contrast in claim.contrasts
            for label in (contrast.arm, contrast.against)
        ]
        named += [
            (f"arm {label}", value.arm)
            for label, arm in self.arms.items()
            for value in arm.model.values()
            if isinstance(value, SameParameters)
        ]
        named += [
            (f"factor {factor}", label)
            for factor, levels in self.factors.items()
            for labels in levels.values()
            for label in labels
        ]
        for what, label in named:
            if label not in self.arms:
                raise ValueError(f"{what}: no arm {label!r}; arms: {', '.join(self.arms)}")
        grid(self.factors)
