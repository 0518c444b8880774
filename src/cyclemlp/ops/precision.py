"""The types to compute in: sums in float32 at least, operators in autocast's type where it is on."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> torch.dtype:
    """The type for a sum over many positions, which loses digits in half precision."""
    return torch.promote_types(x.dtype, torch.float32)


def in_autocast_type(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's type, so that those kept for the backward pass are the small ones."""
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor.to(dtype) for tensor in tensors)
