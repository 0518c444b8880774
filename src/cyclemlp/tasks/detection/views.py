"""The objects of an image from several looks at it: at other sizes, mirrored, and by windows where it is large.

What all looks find is put together, and of those of a class that overlap the likeliest stays (non-maximum suppression
at the overlap of the model card), with the box, score and mask that its look gave it. Nothing is averaged, so scores
keep their meaning; a further look can only add objects or replace one by a likelier one.

A window cuts objects at its border. Windows therefore overlap, and what touches a border that lies inside the image is
left to the neighbour wherever that sees more of it. Objects that are smaller than the overlap are always seen whole by
some window. Larger ones may remain in pieces; a piece gives way to a whole object that covers it, seen at a smaller
scale, say.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from cyclemlp.data.resampling import FloatArray
from cyclemlp.data.resizing import ResizeRule, size_factor
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.inference.runtimes.network import Network
from cyclemlp.inference.tiling import Tiling
from cyclemlp.inference.views import View, Views
from cyclemlp.tasks.card import ModelCard
from cyclemlp.tasks.detection.decoding import Detections, detect, suppress

# Larger images go through windows: 8 million network pixels need gigabytes of memory.
MAX_WHOLE_PIXELS = 2**23
LARGE_IMAGE_WINDOW = 2048
OVERLAP_SHARE = 4
"""Windows share a fourth of their edge: of 2048 pixels 512, the papers' largest anchor."""
TOUCH = 4.0
"""Network pixels from a border within which a box counts as touching it: half the finest stride."""
COVERED = 0.8
"""Share of a piece's box that a whole object must cover for the piece to be a part of it."""

Flags = npt.NDArray[np.bool_]


class Span(NamedTuple):
    """Where a window stands along an axis, in pixels of the image, and what its neighbours see of it."""

    start: int
    stop: int
    seen_before: float
    """End of the window before it; minus infinity for the first."""
    seen_after: float
    """Start of the window after it; infinity for the last."""


@dataclass(frozen=True)
class Look:
    """One pass of the network: a window of a view, which may be the whole image."""

    view: View
    scale: float
    """Factor from pixels of the image to the network's."""
    rows: Span
    columns: Span


def detect_in_views(
    network: Network, card: ModelCard, pixels: npt.NDArray[np.uint8], views: Views, *, progress: bool = False
) -> Detections:
    """The objects in an image (H, W, C) of any size, by the network that `card` describes.

    At most as many as the card keeps, for each window where there are several.
    """
    options = card.detection or DetectionHead()
    plans = [list(looks(card, view, *pixels.shape[:2])) for view in views]
    found, pieces = [], []
    total = sum(map(len, plans))
    # The delay keeps short work silent; disable=None keeps everything silent where nobody watches.
    with tqdm(total=total, unit="window", leave=False, delay=2, disable=None if progress else True) as bar:
        for look in chain(*plans):
            seen, cut = _seen(network, card, pixels, look)
            found.append(seen)
            pieces.append(cut)
            bar.update()
    if len(found) == 1:
        return found[0]
    return merged(Detections.joined(found), np.concatenate(pieces), options.nms, options.kept * max(map(len, plans)))


def looks(card: ModelCard, view: View, height: int, width: int) -> Iterator[Look]:
    """The windows of a view of an image of this size, row by row; one where it is not large."""
    scale = view.scale * card.input_scale * size_factor(height, width, card.short_side, card.long_side)
    window = card.window
    if window is None and height * width * scale**2 > MAX_WHOLE_PIXELS:
        window = LARGE_IMAGE_WINDOW
    usual = 0 if window is None else window // OVERLAP_SHARE
    tiling = Tiling(window, usual if card.overlap is None else card.overlap, scale)
    columns = _spans(tiling, width)
    for row in _spans(tiling, height):
        for column in columns:
            yield Look(view, scale, row, column)


def _spans(tiling: Tiling, length: int) -> list[Span]:
    cuts = tiling.cuts(length)
    ends = [-math.inf, *(float(cut.stop) for cut in cuts)]
    starts = [*(float(cut.start) for cut in cuts), math.inf]
    return [Span(cut.start, cut.stop, ends[i], starts[i + 1]) for i, cut in enumerate(cuts)]


def _seen(network: Network, card: ModelCard, pixels: npt.NDArray[np.uint8], look: Look) -> tuple[Detections, Flags]:
    """What a look finds, in pixels of the image, without what neighbours see better; and which of it is cut."""
    part = pixels[look.rows.start : look.rows.stop, look.columns.start : look.columns.stop]
    shown = part[:, ::-1] if look.view.flipped else part
    found = detect(network, card, shown, ResizeRule(look.scale))
    if look.view.flipped:
        found = found.mirrored(part.shape[1])
    found = found.shifted(look.columns.start, look.rows.start)
    margin = TOUCH / look.scale
    cut_across, left_across = _at_borders(found.boxes_xyxy[:, 0::2], look.columns, margin)
    cut_down, left_down = _at_borders(found.boxes_xyxy[:, 1::2], look.rows, margin)
    stays = ~(left_across | left_down)
    return found.select(stays), (cut_across | cut_down)[stays]


def _at_borders(extents: FloatArray, span: Span, margin: float) -> tuple[Flags, Flags]:
    """Which of the `extents` (N, 2) touch a border inside the image, and which of these a neighbour sees better.

    It does where it sees the other end, too. Never do two neighbours leave an object to each other.
    """
    starts, ends = extents.T
    at_start = (starts <= span.start + margin) & (span.seen_before > -math.inf)
    at_end = (ends >= span.stop - margin) & (span.seen_after < math.inf)
    better_before = at_start & (ends < span.seen_before - margin)
    better_after = at_end & (starts > span.seen_after + margin)
    return at_start | at_end, better_before | better_after


def merged(found: Detections, cut: Flags, most_overlap: float, most: int) -> Detections:
    """One of each object, the likeliest first; `cut` says which were seen in part."""
    stays = ~(cut & _covered(found, cut))
    found = found.select(stays)
    return found.select(suppress(found.boxes_xyxy, found.scores, found.labels, most_overlap, most))


def _covered(found: Detections, cut: Flags) -> Flags:
    """Which of the pieces lie mostly in one whole object of their class."""
    covered = np.zeros_like(cut)
    whole = found.select(~cut)
    for i in np.flatnonzero(cut):
        box = found.boxes_xyxy[i]
        edges = np.minimum(box[2:], whole.boxes_xyxy[:, 2:]) - np.maximum(box[:2], whole.boxes_xyxy[:, :2])
        shared = np.maximum(edges, 0).prod(axis=1) * (whole.labels == found.labels[i])
        covered[i] = (shared >= COVERED * (box[2:] - box[:2]).prod()).any()
    return covered
