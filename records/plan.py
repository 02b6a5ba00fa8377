"""What a study is to be judged by: its question, arms and claims, without any of its code."""

import json
import re
from collections import Counter
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field

from records.canonical import digest, plain
from records.claim import Claim
from records.grid import grid
from records.value import VersionedValue, parse_object

Look = Annotated[int, Field(ge=1)]


class Plan(VersionedValue):
    """A study under one setting. Records are found by it; it holds no number of blocks.

    Whatever is edited, be it the wording of the question, makes another plan beside the first, for
    what was decided before a run must not change after it. Both find the same records, as long as
    the arms are the same.

    Args:
        schema_version: Of this class.
        name: Of the study; letters, digits, underscores.
        question: What is asked.
        preset: Name of the setting; for people, what it holds is in ``arms``.
        baseline: Label of the arm that the others are compared with.
        arms: Resolved configuration without its block, by label, in the study's order.
        claims: What is to be judged.
        looks: Numbers of blocks at which claims may be judged, in their order; they share the 5 %.
        notes: A remark on an arm, by label.
        factors: Arms that form a grid: the labels of each level, by factor (:mod:`records.grid`).

    Raises:
        ValueError: ``baseline``, a claim, a note or a factor names no arm; a configuration holds a
            block; two claims have one name; a label could not be shown, or given on a command line.
    """

    schema_version: int = 2
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    question: str
    preset: str
    baseline: str
    arms: Annotated[dict[str, dict[str, Any]], BeforeValidator(plain), Field(min_length=1)]
    claims: tuple[Claim, ...] = ()
    looks: Annotated[tuple[Look, ...], Field(min_length=1)] = (10,)
    notes: dict[str, str] = Field(default_factory=dict)
    factors: dict[str, dict[str, tuple[str, ...]]] = Field(default_factory=dict)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """As of any value; a plan of schema 1 is read as what it meant (:func:`upgraded`)."""
        return cls(**upgraded(parse_object(content)))

    def model_post_init(self, context: Any) -> None:
        named = [("baseline", self.baseline), *(("note", label) for label in self.notes)]
        named += [
            (f"claim {claim.name}", label)
            for claim in self.claims
            for contrast in claim.contrasts
            for label in (contrast.arm, contrast.against)
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
        # Files are named by claims, and not every file system tells C1 from c1.
        for name, count in Counter(claim.name.lower() for claim in self.claims).items():
            if count > 1:
                same = [claim.name for claim in self.claims if claim.name.lower() == name]
                raise ValueError(f"{count} claims are named {', '.join(same)}; allowed: one")
        if list(self.looks) != sorted(set(self.looks)):
            raise ValueError(f"looks {list(self.looks)}; allowed: each once, in their order")
        grid(self.factors)
        for label, configuration in self.arms.items():
            check_label(label)
            if "block" in configuration:
                raise ValueError(f"arm {label!r} holds a block; allowed: what all blocks share")

    @property
    def hash(self) -> str:
        """Digest of all fields, claims and schema too; the order of the arms does not count."""
        return digest(self.plain())

    @property
    def filename(self) -> str:
        """Name of the plan's file in a results folder."""
        return f"{self.name}.{self.hash}.json"

    def cell_id(self, label: str) -> str:
        """Identity of the arm ``label``, in any block."""
        return digest(self.arms[label])

    def trial_id(self, label: str, block: int) -> str:
        """Identity of the arm ``label`` in ``block``."""
        return digest({**self.arms[label], "block": block})

    def to_bytes(self) -> bytes:
        """JSON for people to read too: indented, the arms in the study's order."""
        return (json.dumps(self.plain(), indent=1, allow_nan=False) + "\n").encode()


def check_label(label: str) -> None:
    """Refuse the label of an arm that cannot be shown, or told from others on a command line.

    Raises:
        ValueError: It is empty, begins or ends with a blank, or holds a comma, a dollar sign (which
            a figure takes for mathematics), or a control character such as a new line.
    """
    if not label or label != label.strip() or re.search(r"[,$\x00-\x1f\x7f]", label):
        raise ValueError(
            f"label {label!r}; allowed: text without commas, dollar signs and control characters, "
            "no blank at either end"
        )


def upgraded(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a plan of schema 1 as schema 2 says them; those of other schemas as they are.

    Schema 1 declared no combination, and "greater" and "less" were asked of every contrast, as by
    ``combine="all"``; trends and differences had no verdict, as by ``"parts"``. That is what
    :class:`records.claim.Claim` fills in, so nothing but the number changes.
    """
    version = fields.get("schema_version")
    return {**fields, "schema_version": 2} if version == 1 and version is not True else fields
