"""What the networks have in common: where a layer goes."""

from torch import nn

from overconv.surgery import Layer, Where, replace_convs, select_convs


def put_layers(network: nn.Module, conv: Layer, where: Where) -> None:
    """Put a ``conv`` in the place of each convolution of ``network`` that ``where`` selects.

    A network under construction is the one that may be changed in place. ``nn.Conv2d`` itself
    leaves it as it is; ``where`` is checked all the same.
    """
    if conv is nn.Conv2d:
        select_convs(network, where)
        return
    for name, child in replace_convs(network, conv, where).named_children():
        setattr(network, name, child)
