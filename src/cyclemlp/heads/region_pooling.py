"""RoIAlign of all regions of a batch, from all levels of a pyramid, as one weighted lookup in a table of positions.

torchvision's kernel passes over channels one by one and does so backwards on a single thread; on a CPU it takes a third
of a training step of Mask R-CNN on small images. A bin is the mean of `SAMPLES` x `SAMPLES` bilinear samples, so a
weighted sum of positions, which `embedding_bag` computes for all channels at once, in both directions on all threads.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES = 2
"""Along each edge of a bin, as torchvision's detectors have."""


def pooled_regions(
    maps: Sequence[Tensor], scales: Sequence[float], regions: Tensor, levels: Tensor, images: Tensor, edge: int
) -> Tensor:
    """The features (R, C, edge, edge) of regions, as `torchvision.ops.roi_align` has them with `SAMPLES`.

    Args:
        maps: (N, C, H, W) each, the levels of the pyramid.
        scales: of each map, positions per pixel.
        regions: (R, 4) x0 y0 x1 y1 in pixels.
        levels, images: (R,) int64, which map a region is read from, and of which image.
        edge: rows and columns of bins.
    """
    channels = maps[0].shape[1]
    table = torch.cat([each.permute(0, 2, 3, 1).reshape(-1, channels) for each in maps]).float()
    sizes = torch.tensor([each.shape[-2:] for each in maps], device=regions.device)
    before = torch.tensor([0, *(each.numel() // channels for each in maps[:-1])], device=regions.device).cumsum(0)
    height, width = sizes[levels].unbind(1)
    scaled = regions * torch.tensor(scales, device=regions.device)[levels, None]
    rows, row_weights = _samples(scaled[:, 1], scaled[:, 3], height, edge)
    columns, column_weights = _samples(scaled[:, 0], scaled[:, 2], width, edge)
    first = before[levels] + images * height * width
    places = first[:, None, None, None, None] + rows[:, :, None, :, None] * width[:, None, None, None, None]
    places = places + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    in_a_bin = (2 * SAMPLES) ** 2
    found = F.embedding_bag(
        places.reshape(-1, in_a_bin), table, per_sample_weights=weights.reshape(-1, in_a_bin), mode="sum"
    )
    return found.to(maps[0].dtype).view(-1, edge, edge, channels).permute(0, 3, 1, 2)


def _samples(start: Tensor, end: Tensor, length: Tensor, edge: int) -> tuple[Tensor, Tensor]:
    """Along one axis, the positions (R, edge, 2 * SAMPLES) that each bin is interpolated from, and their weights.

    A region has an edge of one position at least. Samples more than one position outside of the map count as 0.
    """
    steps = (torch.arange(edge * SAMPLES, device=start.device) + 0.5) / (edge * SAMPLES)
    places = start[:, None] + (end - start).clamp(min=1)[:, None] * steps
    inside = (places >= -1) & (places <= length[:, None])
    places = torch.minimum(places.clamp(min=0), (length - 1)[:, None].to(places.dtype))
    low = places.long()
    high = torch.minimum(low + 1, (length - 1)[:, None])
    share = places - low
    weights = torch.stack([1 - share, share], dim=-1) * (inside / SAMPLES)[..., None]
    return torch.stack([low, high], dim=-1).view(-1, edge, 2 * SAMPLES), weights.view(-1, edge, 2 * SAMPLES)
