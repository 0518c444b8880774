"""From the raw output of a segmentation network to the class of every pixel, and what can be done with it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclemlp.data import drawing
from cyclemlp.data.class_choice import is_background
from cyclemlp.data.lettering import drawn_name
from cyclemlp.data.masks import IGNORE_INDEX
from cyclemlp.files import JsonObject
from cyclemlp.tasks.looks import FloatArray, NetworkImage
from cyclemlp.tasks.segmentation.components import components

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """The class of every pixel of an image."""

    mask: Mask
    """(H, W) uint8 class ids, in the orientation in which the image is shown; 255 where `valid` is false."""
    classes: tuple[str, ...]
    """Name of each class id."""
    image: npt.NDArray[np.uint8]
    """(H, W, C) the image itself, on which `draw` paints."""
    probabilities: npt.NDArray[np.float32] | None = None
    """(K, H, W) probability of each class at each pixel, adding up to 1; None unless `predict` was asked for them."""
    valid: npt.NDArray[np.bool_] | None = None
    """(H, W) whether each pixel is measured and not transparent; None where all are."""

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of the measured pixels per class, adding up to 1 where there are any."""
        counts = np.bincount(self.mask.reshape(-1), minlength=len(self.classes))
        measured = max(1, self.mask.size - self.nodata_pixels)
        return {name: int(n) / measured for name, n in zip(self.classes, counts, strict=False)}

    @property
    def nodata_pixels(self) -> int:
        """The number of pixels that are not measured."""
        return 0 if self.valid is None else int(self.valid.size - np.count_nonzero(self.valid))

    def to_dict(self) -> JsonObject:
        """Task, size and class shares as JSON values; `nodata_pixels` where some are not measured."""
        height, width = self.mask.shape
        nodata = {} if self.valid is None else {"nodata_pixels": self.nodata_pixels}
        size = {"height": height, "width": width}
        return {"task": "segmentation", "size": size, "shares": dict(self.shares), **nodata}

    def class_image(self) -> Image.Image:
        """The mask as a palette image: it opens in colours, and its values are the class ids.

        Where pixels are not measured, they are 255 and transparent.
        """
        image = Image.fromarray(self.mask)
        colours = drawing.palette(len(self.classes))
        if self.valid is not None:
            colours = np.concatenate([colours, np.zeros((256 - len(colours), 3), np.uint8)])
            image.info["transparency"] = IGNORE_INDEX
        image.putpalette(colours.tobytes())
        return image

    @property
    def has_background(self) -> bool:
        """Whether class 0 is what no other class is, by its name; alone it would be the whole image."""
        return is_background(self.classes)

    def objects(self) -> list[JsonObject]:
        """Class, area, centroid and box of the connected pixels of each class but the background; see `components`."""
        numbers = range(1 if self.has_background else 0, len(self.classes))
        return components(self.mask, self.classes, numbers)

    def draw(self, opacity: float = 0.45, legend: bool = True, *, tint_background: bool = False) -> Image.Image:
        """The image with every class painted over it, outlines in full colour, and a legend below it.

        `opacity` in [0, 1] is that of the paint. A background is left as it is, without `tint_background`. The legend
        makes the image higher (and wider, where the image is narrower than an entry).
        """
        colours = drawing.palette(len(self.classes))
        image = drawing.as_rgb(self.image)
        shown = self.mask if self.valid is None else np.where(self.valid, self.mask, np.uint8(0))
        painted = drawing.paint_classes(image, shown, colours, opacity)
        if self.valid is not None:
            painted = np.where(self.valid[..., None], painted, np.asarray(image))
        plain = self.has_background and not tint_background
        if plain:
            painted = np.where((self.mask == 0)[..., None], np.asarray(image), painted)
        drawn = Image.fromarray(painted)
        return _with_legend(drawn, self.shares, plain=plain) if legend else drawn

    def legend(self, *, tint_background: bool = False) -> Image.Image:
        """The legend alone, in the size that it has below the image."""
        plain = self.has_background and not tint_background
        with_image = _with_legend(drawing.as_rgb(self.image), self.shares, plain=plain)
        return with_image.crop((0, self.mask.shape[0], *with_image.size))


def _with_legend(image: Image.Image, shares: dict[str, float], *, plain: bool) -> Image.Image:
    """`image` above rows of swatches with the name and share of each class; `plain` is without one for class 0."""
    background = drawing.colour_list(len(shares))[0] if plain else None
    entries = [(None if colour == background else colour, text) for colour, text in _entries(shares)]
    # Room for any share, so that the frames of a video have images of one size.
    widest = [text.rpartition("  ")[0] + "  100.0 %" for _, text in entries]
    return drawing.with_legend(image, entries, min(64, max(12, min(image.size) // 36)), widest)


def _entries(shares: dict[str, float]) -> list[tuple[drawing.Colour | None, str]]:
    """Colour and text of each entry of the legend: all of few classes, else the largest ones present."""
    names = [drawn_name(name, number) for number, name in enumerate(shares)]
    items = list(zip(drawing.colour_list(len(shares)), zip(names, shares.values(), strict=True), strict=True))
    if len(items) > drawing.MAX_LEGEND:
        items = sorted((item for item in items if item[1][1] > 0), key=lambda item: -item[1][1])
    entries = [
        (colour, f"{drawing.shortened(name)}  {_percent(share)}")
        for colour, (name, share) in items[: drawing.MAX_LEGEND]
    ]
    rest = sum(share for _, (_, share) in items[drawing.MAX_LEGEND :])
    return [*entries, *([(None, f"others  {_percent(rest)}")] if rest else [])]


def _percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.001 else f"{share * 100:.1f} %"


def segment(image: NetworkImage) -> SegmentationResult:
    """The class of every pixel; over several views by their mean probabilities."""
    strips, probabilities, valid = image.maps(softmax), None, image.valid
    if image.keeps_probabilities:
        probabilities = np.concatenate(list(strips), axis=2)
        strips = iter([probabilities])
    mask = most_probable_classes(strips)[0]
    if valid is not None:
        mask[~valid] = IGNORE_INDEX
    kept = None if probabilities is None else probabilities[0]
    return SegmentationResult(mask, image.card.classes, image.pixels, kept, valid)


def most_probable_classes(strips: Iterable[FloatArray]) -> npt.NDArray[np.uint8]:
    """The most probable class of every pixel, (N, H, W), from strips (N, K, rows, W) of logits or probabilities."""
    return np.concatenate(list(map(_most_probable, strips)), axis=1)  # map keeps no strip alive


def _most_probable(logits: FloatArray) -> npt.NDArray[np.uint8]:
    """Class by class over whole maps: numpy's argmax along the second axis is several times slower."""
    best = logits[:, 0].copy()
    classes = np.zeros(best.shape, dtype=np.uint8)
    for index in range(1, logits.shape[1]):
        better = logits[:, index] > best
        np.copyto(best, logits[:, index], where=better)
        classes[better] = index
    return classes


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities over the classes (N, K, rows, W), in place."""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits
