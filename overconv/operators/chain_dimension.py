"""How many kernels a gated chain can reach: the dimension of their span."""

from collections.abc import Sequence


def chain_dimension(
    in_channels: int,
    middle_channels: int,
    out_channels: int,
    *,
    taps: int,
    depth: int,
    placement: Sequence[str],
    spatial: str,
) -> int:
    """Dimension of the span of a chain's kernel over all its gates, weights in general position.

    A kernel is a sum over paths through the middle channels. Each path is the product of a column
    of the last layer and a row of the first, and the gates on it decide its share. With one gated
    middle, a path pairs the column and the row of one channel; with two or more, any column meets
    any row. A gated end sets the channels of that end free of one another.

    Args:
        in_channels, middle_channels, out_channels: Of one group.
        taps: Of the spatial layer.
        depth, placement, spatial: As in :class:`overconv.operators.mdconv.MDConv2d`.
    """
    near_gated, far_gated = "input" in placement, "output" in placement
    # the end that has the taps is near: the input, with the spatial layer first
    near, far = in_channels, out_channels
    if spatial == "last":
        near, far, near_gated, far_gated = far, near, far_gated, near_gated
    near_free, far_free = (near if near_gated else 1), (far if far_gated else 1)
    if "middle" not in placement or depth == 1:
        return near_free * far_free
    near_bound, far_bound = near // near_free, far // far_free
    if depth == 2:
        return near_free * far_free * min(middle_channels, near_bound * taps * far_bound)
    rows = min(middle_channels, near_bound * taps)
    return near_free * rows * far_free * min(middle_channels, far_bound)
