"""ImageNet-1K top-1 as published by the authors of each network, at 224x224. Not measured here."""

from typing import NamedTuple


class Published(NamedTuple):
    """A published accuracy."""

    top1: float
    source: str


_CYCLEMLP = "CycleMLP, arXiv 2107.10224, Table 2"
ACCURACY = {
    "cyclemlp_b1": Published(78.9, _CYCLEMLP),
    "cyclemlp_b2": Published(81.6, _CYCLEMLP),
    "cyclemlp_b3": Published(82.4, _CYCLEMLP),
    "cyclemlp_b4": Published(83.0, _CYCLEMLP),
    "cyclemlp_b5": Published(83.2, _CYCLEMLP),
    "resnet50": Published(78.5, "CycleMLP, arXiv 2107.10224, Table 3"),
    "swin_tiny_patch4_window7_224": Published(81.3, "CycleMLP, arXiv 2107.10224, Table 3"),
    "convnext_tiny": Published(82.066, "timm, results-imagenet.csv, convnext_tiny.fb_in1k at 224"),
}
