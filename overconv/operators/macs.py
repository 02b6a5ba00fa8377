"""What a layer costs, as integers; and what nothing has to be computed for in a backward pass."""

from dataclasses import astuple, dataclass

from torch import nn


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one pass, by kind.

    The first four are counted for one image; ``shared`` is spent once a batch, however large.
    A bias and a normalisation count as zero: the first is an addition, the second folds away.

    Attributes:
        gate: The linear layers that turn pooled features into gates.
        compose: Building one kernel a sample.
        convolution: Convolving.
        other: Elementwise work, one a value: pooling, gating features, scaling or adding kernels.
        shared: Work of any kind whose result serves the whole batch, such as composing a kernel
            whose gates do not depend on the sample.
    """

    gate: int = 0
    compose: int = 0
    convolution: int = 0
    other: int = 0
    shared: int = 0

    def __add__(self, other: "Macs") -> "Macs":
        return Macs(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "Macs") -> "Macs":
        return Macs(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __rmul__(self, factor: int) -> "Macs":
        return Macs(*(factor * n for n in astuple(self)))

    def per_image(self, batch: int) -> float:
        """All kinds together for one image of a batch, which share what is done once."""
        return self.total - self.shared + self.shared / batch

    @property
    def total(self) -> int:
        """All kinds together, for a batch of one image."""
        return self.gate + self.compose + self.convolution + self.other + self.shared


def is_frozen(layer: nn.Module, input_gradient: bool) -> bool:
    """Whether no gradient passes a layer at all, so that its backward pass costs nothing.

    Raises:
        ValueError: Gradients pass some of its products and not others, and which is not known: it
            is frozen in part, or whole and its input needs a gradient.
    """
    frozen = [name for name, value in layer.named_parameters() if not value.requires_grad]
    if frozen and (input_gradient or len(frozen) < len(list(layer.parameters()))):
        raise ValueError(
            f"no formula for the backward pass of a {type(layer).__name__} whose {frozen[0]!r} is"
            " frozen: that is known where all of its parameters train, or nothing does"
        )
    return bool(frozen)
