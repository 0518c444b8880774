"""The operators: 1x1 layers whose input channels are read along a staircase (CycleFC), in shifted groups (AS-MLP), or
at learned places (ActiveMLP).
"""

from cyclemlp.ops.active_mix import ActiveFC, active_mix, active_mix_reference
from cyclemlp.ops.axial_shift import AxialFC, axial_shift, axial_shift_reference
from cyclemlp.ops.cycle_fc import CycleFC, cycle_fc, cycle_fc_reference
from cyclemlp.ops.places import read_places

__all__ = [
    "ActiveFC",
    "AxialFC",
    "CycleFC",
    "active_mix",
    "active_mix_reference",
    "axial_shift",
    "axial_shift_reference",
    "cycle_fc",
    "cycle_fc_reference",
    "read_places",
]
