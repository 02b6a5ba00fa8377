"""Over-parameterised convolutions: layers that own more parameters while they train."""

from overconv.costs import count_costs as count_costs
from overconv.forms import Plan as Plan
from overconv.forms import make_plan as make_plan
from overconv.forms import plan_forms as plan_forms
from overconv.gates import TemperatureSchedule as TemperatureSchedule
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
from overconv.surgery import replace_convs as replace_convs
from overconv.surgery import to_inference as to_inference

__version__ = "0.1.0"
