"""The operators: CycleFC, a 1x1 layer whose input channels are read along a staircase."""

from cyclemlp.ops.cycle_fc import CycleFC, cycle_fc, cycle_fc_reference, cycle_shift, shift_groups

__all__ = ["CycleFC", "cycle_fc", "cycle_fc_reference", "cycle_shift", "shift_groups"]
