"""What a study is to be judged by: its question, arms and claims, without any of its code."""

import json
from collections import Counter
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from records.canonical import digest, plain
from records.claim import Claim
from records.value import VersionedValue

Look = Annotated[int, Field(ge=1)]


class Plan(VersionedValue):
    """A study under one setting. Records are found by it; it holds no number of blocks.

    Args:
        schema_version: Of this class.
        name: Of the study; letters, digits, underscores.
        question: What is asked.
        preset: Name of the setting; for people, what it holds is in ``arms``.
        baseline: Label of the arm that the others are compared with.
        arms: Resolved configuration without its block, by label, in the study's order.
        claims: What is to be judged.
        looks: Numbers of blocks at which claims may be judged.
        notes: A remark on an arm, by label.

    Raises:
        ValueError: ``baseline``, a claim or a note names no arm; a configuration holds a block; two
            claims have one name.
    """

    schema_version: int = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    question: str
    preset: str
    baseline: str
    arms: Annotated[dict[str, dict[str, Any]], BeforeValidator(plain), Field(min_length=1)]
    claims: tuple[Claim, ...] = ()
    looks: Annotated[tuple[Look, ...], Field(min_length=1)] = (10,)
    notes: dict[str, str] = Field(default_factory=dict)

    def model_post_init(self, context: Any) -> None:
        named = [("baseline", self.baseline), *(("note", label) for label in self.notes)]
        named += [
            (f"claim {claim.name}", label)
            for claim in self.claims
            for contrast in claim.contrasts
            for label in (contrast.arm, contrast.against)
        ]
        for what, label in named:
            if label not in self.arms:
                raise ValueError(f"{what}: no arm {label!r}; arms: {', '.join(self.arms)}")
        for name, count in Counter(claim.name for claim in self.claims).items():
            if count > 1:
                raise ValueError(f"{count} claims are named {name!r}; allowed: one")
        for label, configuration in self.arms.items():
            if "block" in configuration:
                raise ValueError(f"arm {label!r} holds a block; allowed: what all blocks share")

    @property
    def hash(self) -> str:
        """Digest of all fields; the order of the arms is for people and does not count."""
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
