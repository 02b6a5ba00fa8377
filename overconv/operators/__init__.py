"""Layers that own more parameters while they train than the convolution they stand in for."""

from overconv.operators.acb import ACConv2d as ACConv2d
from overconv.operators.condconv import CondConv2d as CondConv2d
from overconv.operators.dbb import DBBConv2d as DBBConv2d
from overconv.operators.dcd import DCDConv2d as DCDConv2d
from overconv.operators.doconv import DOConv2d as DOConv2d
from overconv.operators.dyconv import DyConv2d as DyConv2d
from overconv.operators.dynet import DyNetConv2d as DyNetConv2d
from overconv.operators.expand import ExpandConv2d as ExpandConv2d
from overconv.operators.maconv import MAConv2d as MAConv2d
from overconv.operators.mdconv import MDConv2d as MDConv2d
from overconv.operators.mobileone import MobileOneConv2d as MobileOneConv2d
from overconv.operators.odconv import ODConv2d as ODConv2d
from overconv.operators.orepa import OREPAConv2d as OREPAConv2d
from overconv.operators.repvgg import RepVGGConv2d as RepVGGConv2d
from overconv.operators.se import SEConv2d as SEConv2d
from overconv.operators.weightnet import WeightNetConv2d as WeightNetConv2d
