r"""The active token mixer's operator: a 1x1 layer whose input channels are read at learned places along one axis.

CycleFC reads channel c at a distance that is fixed for all positions and images. Here a small layer computes the
distance from the features themselves, for each position separately, and it need not be a whole number: between two
positions the input is interpolated linearly. `share` neighbouring channels have one offset in common. Along the
width, share 2:

    channel       0     1  |  2     3  |  4     5   ...
    offset        +1.3     |  -2.0     |  +0.6           (and others at the next position)

    position j+2  [.3] [.3]
    position j+1  [.7] [.7]            [.6] [.6]
    position j                         [.4] [.4]         sum over c of W[o, c] * (x interpolated at j + offset)[c]
    position j-1
    position j-2            [1] [1]

    out[b, i, j, o] = sum_c W[o, c] * x~[b, i, j + offset[b, i, j, c // share], c] + bias[o]
    x~(p) = (1 - p + k) * x[k] + (p - k) * x[k + 1],   k = floor(p),   x is zero outside the image

and likewise along the height, with i and j in exchanged roles. Parameters and products are those of the 1x1 layer, and
the image has any size. Source: Wei, Zhang, Lan, Lu, Chen, "Active Token Mixer", AAAI 2023, arXiv 2203.06108; the
authors' code (github.com/microsoft/TokenMixers, MIT) runs a deformable convolution, which interpolates along both axes.

Here reading is one pass over memory (`places.py`), in eager code and in recorded graphs, and then comes one product.
"""

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from cyclemlp.ops.places import Axis, Grid, Taps, read
from cyclemlp.ops.precision import in_autocast_type


def active_mix_reference(
    x_nhwc: Tensor, offset_nhwg: Tensor, weight_oc: Tensor, bias_o: Tensor | None = None, axis: Axis = "width"
) -> Tensor:
    """The formula above, position by position and channel by channel: slow, for checking."""
    batch, height, width, channels = x_nhwc.shape
    share = channels // offset_nhwg.shape[-1]
    out = x_nhwc.new_zeros(batch, height, width, weight_oc.shape[0])
    for b, i, j, c in torch.cartesian_prod(*map(torch.arange, x_nhwc.shape)).tolist():
        line = x_nhwc[b, i, :, c] if axis == "width" else x_nhwc[b, :, j, c]
        place = (j if axis == "width" else i) + offset_nhwg[b, i, j, c // share]
        below = int(place.floor())
        for k, share_of_k in ((below, 1 - place + below), (below + 1, place - below)):
            if 0 <= k < len(line):
                out[b, i, j] += weight_oc[:, c] * share_of_k * line[k]
    return out if bias_o is None else out + bias_o


def active_mix(x_nhwc: Tensor, places: Taps | Grid, weight_oc: Tensor, bias_o: Tensor | None = None) -> Tensor:
    """Fully connected layer over channels that are read at `places`.

    Args:
        x_nhwc: (batch, height, width, in channels), any strides, any size including an empty batch.
        places: from `read_places`, for offsets of the same batch, height and width; the number of their groups divides
            the input channels.
        weight_oc: (out channels, in channels).
        bias_o: (out channels) or None.

    Returns:
        (batch, height, width, out channels); under autocast in autocast's type.

    Raises:
        ValueError: shapes that do not fit.

    Source: paper section 3.2.
    """
    if x_nhwc.ndim != 4 or weight_oc.ndim != 2 or x_nhwc.shape[-1] != weight_oc.shape[1]:
        raise ValueError(
            f"active_mix got input {tuple(x_nhwc.shape)} and weight {tuple(weight_oc.shape)}; "
            "it needs (batch, height, width, in) and (out, in)"
        )
    x_nhwc, weight_oc = in_autocast_type(x_nhwc, weight_oc)
    return F.linear(read(x_nhwc, places), weight_oc, None if bias_o is None else bias_o.to(weight_oc.dtype))


torch.fx.wrap("active_mix")  # one node of a symbolic trace, because it looks at shapes


class ActiveFC(nn.Linear):
    """`torch.nn.Linear` whose input channels are read at learned places: see `active_mix`.

    Args are those of `torch.nn.Linear`; offsets are computed outside, because several layers share them.
    Shape: (batch, height, width, in_features) and places -> (batch, height, width, out_features).
    """

    def forward(self, x_nhwc: Tensor, places: Taps | Grid) -> Tensor:  # type: ignore[override]
        """(batch, height, width, in) -> (batch, height, width, out)."""
        return active_mix(x_nhwc, places, self.weight, self.bias)
