"""Names of families, as `--model` takes them: each stands for the smallest usual model of the family."""

import logging
from types import MappingProxyType

FAMILIES = MappingProxyType(
    {
        "cyclemlp": "cyclemlp_nano",
        "activemlp": "activemlp_nano",
        "asmlp": "asmlp_tiny",
        "mixer": "mixer_s32_224",
        "resmlp": "resmlp_12_224",
        "gmlp": "gmlp_ti16_224",
        "swin": "swin_tiny_patch4_window7_224",
        "convnext": "convnext_tiny",
        "resnet": "resnet18",
        "pvt": "pvt_v2_b0",
    }
)

_logger = logging.getLogger(__name__)


def full_name(model: str) -> str:
    """The model a family's name stands for, with a line in the log; any other name as it is."""
    if model not in FAMILIES:
        return model
    _logger.info("model %s is taken as %s", model, FAMILIES[model])
    return FAMILIES[model]
