"""How a network sees an image: whole or in windows, in one view or several. What a task's `predict` is given."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from cyclemlp.tasks.card import ModelCard

FloatArray = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Measured = npt.NDArray[np.bool_]


class View(NamedTuple):
    """One way of presenting an image to the network: test-time augmentation uses several."""

    scale: float
    """Factor on the size at which the network usually sees images."""
    flipped: bool
    """Whether the image is mirrored left to right."""


class Span(NamedTuple):
    """Where a window lies along an axis, in pixels of the image, and what its neighbours see of it."""

    start: int
    stop: int
    seen_before: float
    """End of the window before it; minus infinity for the first."""
    seen_after: float
    """Start of the window after it; infinity for the last."""


class Look(NamedTuple):
    """One pass of the network: a window of a view, which may be the whole image."""

    view: View
    scale: float
    """Factor from pixels of the image to pixels of the network's input."""
    rows: Span
    columns: Span


class NetworkImage(Protocol):
    """An image on its way through a network: what a task's `predict` reads its outputs from."""

    @property
    def card(self) -> "ModelCard":
        """What describes the network."""

    @property
    def pixels(self) -> Pixels:
        """The image (H, W, C)."""

    @property
    def valid(self) -> Measured | None:
        """Whether each pixel (H, W) is measured and not transparent; None where all are."""

    @property
    def keeps_probabilities(self) -> bool:
        """Whether the result is to have the probability of each class at each pixel."""

    def run(self, images: FloatArray, /) -> tuple[FloatArray, ...]:
        """The network's raw outputs for normalised images (N, C, H, W) of a size that it takes."""

    def maps(self, activation: Callable[[FloatArray], FloatArray], /) -> Iterator[FloatArray]:
        """For networks whose output has a value per pixel: the output at the image's size, from top to bottom.

        Yields strips (1, K, rows, W). Large images pass through in windows that are blended. Where there are several
        views, `activation` is applied to each view's output and the mean of the views is returned; to the output of a
        single view it is applied where the probabilities are kept.
        """

    def looks(self) -> list[list[Look]]:
        """For networks that find objects: the windows of each view."""

    def in_turn(self, looks: Sequence[Sequence[Look]], /) -> Iterator[Look]:
        """All looks one after another, with a progress bar where one was asked for."""
