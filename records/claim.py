"""What a study claims, said before any arm is trained."""

from typing import Annotated, Literal

from pydantic import Field

from records.value import Value

Text = Annotated[str, Field(min_length=1)]


class Contrast(Value):
    """A comparison of two arms, by their labels: ``arm`` minus ``against``, block by block."""

    arm: Text
    against: Text

    def model_post_init(self, context: object) -> None:
        if self.arm == self.against:
            raise ValueError(f"contrast of {self.arm!r} with itself; allowed: two arms")


class Claim(Value):
    """A statement that the records of a study can support or contradict.

    Args:
        name: Short: the claim's number in the source, for instance ``"C1"``.
        wording: The claim in words.
        measure: The metric that judges it.
        direction: ``"greater"``, ``"less"``: of ``arm``, than ``against``; ``"trend"``: along the
            contrasts in their order; ``"different"``: whichever way.
        contrasts: The comparisons that judge it; declared, so that none is picked afterwards.
        margin: The smallest difference that matters, in the measure's unit: for accuracies,
            which are fractions, 0.005 is half a point.
    """

    name: Text
    wording: Text
    measure: Text = "test_accuracy"
    direction: Literal["greater", "less", "trend", "different"]
    contrasts: Annotated[tuple[Contrast, ...], Field(min_length=1)]
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]
