"""Layers that own more parameters while they train than the convolution they stand in for."""

from overconv.operators.condconv import CondConv2d as CondConv2d
from overconv.operators.dyconv import DyConv2d as DyConv2d
from overconv.operators.maconv import MAConv2d as MAConv2d
from overconv.operators.mdconv import MDConv2d as MDConv2d
