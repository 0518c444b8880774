"""The backbones; importing this module registers them with timm."""

from cyclemlp.models.activemlp import ActiveMLP
from cyclemlp.models.asmlp import ASMLP
from cyclemlp.models.backbones import create_backbone
from cyclemlp.models.checkpoints import load_checkpoint
from cyclemlp.models.cyclemlp import CycleBlock, CycleMixer, CycleMLP
from cyclemlp.models.cyclemlp_swin import CycleSwinMLP
from cyclemlp.models.weights import fetch_weights

__all__ = [
    "ASMLP",
    "ActiveMLP",
    "CycleBlock",
    "CycleMLP",
    "CycleMixer",
    "CycleSwinMLP",
    "create_backbone",
    "fetch_weights",
    "load_checkpoint",
]
