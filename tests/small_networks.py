"""One network of every family, of timm's making and small enough for any tool."""

from typing import Any

import timm
import torch
from torch import Tensor

from cyclemlp.models import activemlp, asmlp, cyclemlp, cyclemlp_swin
from cyclemlp.models.activemlp import ActiveMLPSizes
from cyclemlp.models.asmlp import ASMLPSizes
from cyclemlp.models.cyclemlp import CycleMLPSizes
from cyclemlp.models.patches import doubling

SMALL = {
    "cyclemlp_nano": (cyclemlp, CycleMLPSizes((12, 16, 24, 32), (1, 1, 2, 1), (2, 2, 2, 2))),
    "cyclemlp_tiny": (cyclemlp_swin, CycleMLPSizes(doubling(12), (1, 1, 1, 1), (2, 2, 2, 2))),
    "asmlp_tiny": (asmlp, ASMLPSizes(doubling(12), (1, 1, 1, 1), (2, 2, 2, 2))),
    "activemlp_nano": (activemlp, ActiveMLPSizes((16, 16, 24, 32), (2, 2, 2, 2), (2, 2, 2, 2), shares=(2, 4, 4, 4))),
}
"""For each family the registered name whose sizes are replaced, and the sizes: widths of which some do not divide by
the number of groups."""


def create(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return network.eval()


def images(batch: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height * width + batch))
