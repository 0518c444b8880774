"""The backbones; importing this module registers them with timm."""

from cyclemlp.models.backbones import create_backbone
from cyclemlp.models.checkpoints import load_checkpoint
from cyclemlp.models.cyclemlp import CycleBlock, CycleMixer, CycleMLP

__all__ = ["CycleBlock", "CycleMLP", "CycleMixer", "create_backbone", "load_checkpoint"]
