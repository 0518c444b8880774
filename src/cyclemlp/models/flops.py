"""FLOPs as the CycleMLP paper counts them.

The paper's Table 1 (2.1, 3.9, 6.9, 10.1, 12.3 G for B1-B5 at 224x224) follows the rule of fvcore: one per multiply-add
of convolutions and linear layers (and of the matrix products in attention, which other networks have), and five per
element that a LayerNorm or GroupNorm normalises. Multiply-adds alone would be 6.8, 10.0 and 12.2 G for B3, B4 and B5.
AS-MLP, with GroupNorms, has 4.38, 8.56 and 15.19 G by this rule; its authors publish 4.4, 8.5 and 15.2, by a rule of
their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

NORM_FLOPS = 5
"""Per normalised element, as in fvcore."""


def count_flops(model: nn.Module, height: int, width: int) -> int:
    """FLOPs of one image by the paper's rule, from shapes alone: nothing is computed.

    Args:
        model: takes images (1, channels, height, width), with the channels of its first convolution.
        height: of the image, in pixels.
        width: likewise.

    Returns:
        Multiply-adds of convolutions, linear layers and matrix products, plus 5 per element of LayerNorm and GroupNorm.
    """
    # torch counts multiplications and additions separately, hence the factors of two
    norms = torch.ops.aten.native_layer_norm, torch.ops.aten.native_group_norm
    return _operations(model, height, width, dict.fromkeys(norms, _twice_norm_flops)) // 2


def count_multiply_adds(model: nn.Module, height: int, width: int) -> int:
    """As `count_flops`, without the norms."""
    return _operations(model, height, width, {}) // 2


def _operations(model: nn.Module, height: int, width: int, rules: dict[Any, Any]) -> int:
    image = torch.empty(1, _in_channels(model), height, width, device="meta")
    state: dict[str, Tensor] = {name: each.to("meta") for name, each in model.named_parameters()}
    state |= {name: each.to("meta") for name, each in model.named_buffers()}
    with evaluating(model), torch.no_grad(), FlopCounterMode(display=False, custom_mapping=rules) as counter:
        functional_call(model, state, (image,))
    return int(counter.get_total_flops())


def _twice_norm_flops(shape: torch.Size, *_: object, **__: object) -> int:
    return 2 * NORM_FLOPS * prod(shape)


def _in_channels(model: nn.Module) -> int:
    convolutions = (module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
    return next(convolutions, 3)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards each module returns to its own mode."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
