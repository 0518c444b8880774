"""How far a network sees: the gradient of the centre of its last map with respect to the image.

The energy of a pixel is the squared gradient of the last map's central vector with respect to it, summed over the
channels of both and averaged over images. The sum over the map's channels is estimated with random signs: the plain
sum of a LayerNorm's outputs is constant and has no gradient at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.figures import draw_heat_maps
from benchmarks.records import command_line
from cyclemlp.cli.bench_output import Json, Out, aligned, check_out, check_positive, deliver
from cyclemlp.data.images import list_images, read_image
from cyclemlp.data.resizing import central_crop
from cyclemlp.data.samples.blue_marble import prepare_blue_marble
from cyclemlp.data.sampling import evenly_spaced
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.machine import environment
from cyclemlp.models.classifiers import create_classifier
from cyclemlp.tasks.card import load_model

DIRECTIONS = 4
"""Random signs over the channels of the last map, for each image."""
SHARES = (0.5, 0.95)

Heat = npt.NDArray[np.float64]
"""Energy of each pixel, (size, size), adding up to 1."""


def receptive_field(
    names: tuple[str, ...] = ("cyclemlp_b1", "swin_tiny_patch4_window7_224", "resnet50"),
    /,
    *,
    data: Path | None = None,
    images: int = 8,
    size: int = 224,
    picture: Path | None = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Draw how strongly the centre of the last map depends on each pixel, and on how much of the image's area.

    Parameters
    ----------
    names
        timm names (with random weights) or run folders of classifiers.
    data
        A folder of images; by default the sample of the Earth.
    images
        Number of images, evenly spaced in the folder.
    size
        Edge of the square images, in pixels.
    picture
        File for the figure; by default next to `--out`, as .png.
    """
    check_out(out, "receptive-field.json")
    check_positive(images=images, size=size)
    paths = _images(data, images)
    seen = [see(name, paths, size) for name in names]
    record = {
        "bench": "receptive-field",
        "environment": environment(command_line(), torch.get_num_threads(), []),
        "images": len(paths),
        "source": "the Blue Marble sample" if data is None else data.name,
        "size": size,
        "models": [each.to_dict() for each in seen],
    }
    picture = picture or (out.with_suffix(".png") if out else None)
    if picture is not None:
        draw_heat_maps([(each.title, each.caption, each.heat) for each in seen], picture)
    deliver(record, _table(record), out, json)


def _images(data: Path | None, count: int) -> list[Path]:
    folder = prepare_blue_marble() / "images" / "val" if data is None else data
    found = list_images(folder) if folder.is_dir() else []
    if not found:
        raise DataError(f"--data {folder} has no images: give a folder that has some directly in it")
    return evenly_spaced(found, count)


@dataclass(frozen=True)
class Seen:
    """What one network sees."""

    model: str
    """Its name or run folder."""
    random_weights: bool
    """Whether it has not been trained."""
    heat: Heat
    """Energy of each pixel of the image."""

    @property
    def title(self) -> str:
        """For the figure."""
        return f"{Path(self.model).name}\n{'random weights' if self.random_weights else 'trained'}"

    @property
    def caption(self) -> str:
        """For the figure: the areas that hold most of the energy."""
        half, most = (area_of_energy(self.heat, share) for share in SHARES)
        return f"50 % of the energy in {half:.1%} of the area\n95 % in {most:.1%}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the shares of the area, without the heat map."""
        areas = {f"area_of_{share:.0%}_energy": area_of_energy(self.heat, share) for share in SHARES}
        return {"model": self.model, "random_weights": self.random_weights, **areas}


def see(name_or_run: str, paths: Sequence[Path], size: int) -> Seen:
    """Measure a timm model with random weights, or the classifier of a run folder, on the middle of the images.

    Raises:
        ConfigError: an unknown model, or one without maps.
        CheckpointError: a folder that is no run.
    """
    torch.manual_seed(0)
    is_run = Path(name_or_run).exists()
    network = load_model(Path(name_or_run))[0] if is_run else create_classifier(name_or_run, 1000, image_size=size)
    if not hasattr(network, "forward_features"):
        raise ConfigError(f"{name_or_run} is no classifier: give the name of a timm model or a run of one")
    crops = np.stack([central_crop(read_image(path), size, 1.0) for path in paths])
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
    return Seen(name_or_run, not is_run, energy(network.eval(), images))


def energy(network: nn.Module, images: Tensor) -> Heat:
    """Energy of each pixel of `images` (N, C, H, W), averaged over them, (H, W), adding up to 1.

    Raises:
        ConfigError: the features of `network` are no maps (N, C, H, W) or (N, H, W, C).
    """
    signs = torch.Generator().manual_seed(0)
    total = torch.zeros(images.shape[-2:], dtype=torch.float64)
    for image in images:
        x = image[None].requires_grad_()
        centre = _centre(cast(Any, network).forward_features(x), cast(Any, network).num_features)
        for _ in range(DIRECTIONS):
            direction = torch.randint(0, 2, centre.shape, generator=signs) * 2.0 - 1
            (gradient,) = torch.autograd.grad(centre @ direction, x, retain_graph=True)
            total += gradient[0].double().square().sum(0)
    return (total / total.sum()).numpy()


def area_of_energy(heat: Heat, share: float) -> float:
    """The smallest part of the pixels, in (0, 1], that holds `share` of the energy."""
    falling = np.sort(heat, axis=None)[::-1].cumsum()
    needed = int(np.searchsorted(falling, share * falling[-1] * (1 - 1e-9))) + 1
    return needed / heat.size


def _centre(features: Tensor, channels: int) -> Tensor:
    if features.ndim != 4:
        raise ConfigError(f"the network's features have shape {tuple(features.shape)}: it has no maps to look at")
    x = features if features.shape[1] == channels else features.permute(0, 3, 1, 2)
    return x[0, :, x.shape[2] // 2, x.shape[3] // 2]


def _table(record: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("model", "weights", "area of 50% of the energy", "area of 95%")]
    for each in record["models"]:
        weights = "random" if each["random_weights"] else "trained"
        areas = (f"{each[f'area_of_{share}_energy']:.1%}" for share in ("50%", "95%"))
        rows.append((each["model"], weights, *areas))
    return "\n".join([f"{record['images']} images of {record['source']}", *aligned(rows)]) + "\n"
