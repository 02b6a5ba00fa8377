"""Over-parameterised convolutions: layers that own more parameters while they train."""

from overconv.costs import count_costs as count_costs
from overconv.forms import Plan as Plan
from overconv.forms import make_plan as make_plan
from overconv.forms import plan_forms as plan_forms
from overconv.gates import TemperatureSchedule as TemperatureSchedule
from overconv.operators.condconv import CondConv2d as CondConv2d
from overconv.operators.dyconv import DyConv2d as DyConv2d
from overconv.operators.maconv import MAConv2d as MAConv2d
from overconv.operators.mdconv import MDConv2d as MDConv2d
from overconv.surgery import replace_convs as replace_convs
from overconv.surgery import to_inference as to_inference

__version__ = "0.1.0"
