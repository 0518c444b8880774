"""The operators: 1x1 layers whose input channels are read along a staircase (CycleFC) or in shifted groups (AS-MLP)."""

from cyclemlp.ops.axial_shift import AxialFC, axial_shift, axial_shift_reference
from cyclemlp.ops.cycle_fc import CycleFC, cycle_fc, cycle_fc_reference

__all__ = [
    "AxialFC",
    "CycleFC",
    "axial_shift",
    "axial_shift_reference",
    "cycle_fc",
    "cycle_fc_reference",
]
