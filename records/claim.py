"""What a study claims, said before any arm is trained."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from records.value import Value

Text = Annotated[str, Field(min_length=1)]
# Names are parts of file names, so none may be changed to become one.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

METRICS = ("test_accuracy", "test_loss", "validation_accuracy", "validation_loss", "train_loss")
CURVE_FIGURES = ("mean_validation_accuracy", "last_grad_norm")
TIMES_TO_TARGET = ("epochs_to_target", "seconds_to_target")
MEASURES = (*METRICS, *CURVE_FIGURES, *TIMES_TO_TARGET)
COSTS = (
    "parameters_training",
    "parameters_deployed",
    "over_parameters",
    "macs_training",
    "macs_deployed",
    "flops_training",
    "flops_deployed",
)


class Contrast(Value):
    """A comparison of two arms, by their labels: ``arm`` minus ``against``, block by block."""

    arm: Text
    against: Text

    def model_post_init(self, context: object) -> None:
        if self.arm == self.against:
            raise ValueError(f"contrast of {self.arm!r} with itself; allowed: two arms")


class Evidence(Value):
    """Part of a claim that no record can judge: what it is, and what does (a test, a command)."""

    what: Text
    where: Text


class Claim(Value):
    """A statement that the records of a study can support or contradict.

    Its contrasts are its family: 5 % is the error of all of them together.

    Args:
        name: Short: the claim's number in the source, for instance ``"C1"``. Letters, digits,
            ``.``, ``_``, ``-``: files are named by it.
        wording: The claim in words.
        measure: What judges it. A metric of a record, as of the last epoch; the mean over the
            epochs of the validation accuracy (the area under its curve); the norm of the
            gradients in the last epoch; or the epochs or seconds that it takes to a ``target``.
        direction: ``"greater"``, ``"less"``: of ``arm``, than ``against``; ``"trend"``: along the
            contrasts in their order; ``"different"``: whichever way. The last two are told in
            words, and have no verdict of their own.
        contrasts: The comparisons that judge it; declared, so that none is picked afterwards.
        margin: The smallest difference that matters, in the measure's unit: for accuracies,
            which are fractions, 0.005 is half a point.
        combine: How contrasts make a verdict. ``"all"``: every one must hold, each within an
            interval that holds for all together; one contradicted contradicts. ``"peers"``: the
            same, but a claim that needs every one errs least where its contrasts agree, so each is
            supported by its own bound alone. ``"parts"``: each has a verdict of its own. Default:
            ``"all"``; of a trend or a difference ``"parts"``, the only one allowed.
        fewer: A cost that ``arm`` must have less of than ``against``, by exact count.
        target: For the measures that lead to one: the share of the validation accuracy that the
            study's baseline ends with, in the same block.
        evidence: What the claim says besides, that is proven or measured elsewhere.

    Raises:
        ValueError: An unknown measure or cost; a combination or a target that the direction or the
            measure does not allow.
    """

    name: Name
    wording: Text
    measure: Text = "test_accuracy"
    direction: Literal["greater", "less", "trend", "different"]
    contrasts: Annotated[tuple[Contrast, ...], Field(min_length=1)]
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    combine: Literal["all", "peers", "parts"]
    fewer: Text | None = None
    target: Annotated[float, Field(gt=0, le=1)] | None = None
    evidence: tuple[Evidence, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, fields: Any) -> Any:
        """The combination that the direction implies, written out: a plan says all it means."""
        if isinstance(fields, dict) and "combine" not in fields:
            in_words = fields.get("direction") in ("trend", "different")
            return {**fields, "combine": "parts" if in_words else "all"}
        return fields

    def model_post_init(self, context: object) -> None:
        if self.measure not in MEASURES:
            raise ValueError(f"measure {self.measure!r}; allowed: {', '.join(MEASURES)}")
        if self.fewer is not None and self.fewer not in COSTS:
            raise ValueError(f"fewer {self.fewer!r}; allowed: {', '.join(COSTS)}")
        in_words = self.direction in ("trend", "different")
        if in_words and self.fewer is not None:
            raise ValueError(
                f"fewer {self.fewer!r} of direction {self.direction!r}; allowed: of 'greater', "
                "'less'"
            )
        if in_words and self.combine != "parts":
            raise ValueError(
                f"combine {self.combine!r} of direction {self.direction!r}; allowed: 'parts'"
            )
        if (self.measure in TIMES_TO_TARGET) != (self.target is not None):
            raise ValueError(
                f"target {self.target} with measure {self.measure!r}; allowed: a share of the "
                f"baseline's accuracy with {', '.join(TIMES_TO_TARGET)}, none with others"
            )
        if len(set(self.contrasts)) < len(self.contrasts):
            raise ValueError("a contrast appears twice; allowed: each once")
