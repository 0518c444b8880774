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

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

NORM_FLOPS = 5
"""Per normalised element, as in fvcore."""


def count_flops(model: nn.Module, height: int, width: int, *, norm_flops: int = NORM_FLOPS) -> int:
    """FLOPs of one image by the paper's rule, from shapes alone: nothing is computed.

    Args:
        model: takes images (1, channels, height, width), with the channels of its first convolution.
        height: of the image, in pixels.
        width: likewise.
        norm_flops: per normalised element of a LayerNorm or GroupNorm; 0 for multiply-adds alone.

    Returns:
        Multiply-adds of convolutions, linear layers and matrix products, plus `norm_flops` per normalised element.
    """
    # torch counts multiplications and additions separately, hence the factors of two
    norms = torch.ops.aten.native_layer_norm, torch.ops.aten.native_group_norm
    rules = dict.fromkeys(norms, lambda shape, *_, **__: 2 * norm_flops * prod(shape))
    image = torch.empty(1, _in_channels(model), height, width, device="meta")
    state = {name: each.to("meta") for name, each in (*model.named_parameters(), *model.named_buffers())}
    with evaluating(model), torch.no_grad(), FlopCounterMode(display=False, custom_mapping=rules) as counter:
        functional_call(model, state, (image,))
    return int(counter.get_total_flops()) // 2


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
