"""How far long work is: a bar on a terminal or in a notebook, elsewhere a line in the log now and then."""

import logging
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

FIRST_LINE, NEXT_LINES = 2.0, 30.0
"""Seconds until the first line of work outside a terminal, and between further ones."""
_FORM = "{desc}: {n_fmt}/{total_fmt} {unit}, {remaining} left"
_FORM_WITHOUT_TOTAL = "{desc}: {n_fmt} {unit}, {rate_fmt}"

_logger = logging.getLogger(__name__)


def shows_bars() -> bool:
    """Whether a bar can be redrawn in place; a notebook can, although its standard error is no terminal."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def progress_bar(
    items: Iterable[Any] | None = None, *, what: str, unit: str, total: int | None = None, shown: bool = True
) -> "tqdm[Any]":
    """Tqdm's bar over `items`, or one that is advanced by hand to `total`; work under two seconds shows nothing.

    Args:
        items: what is iterated over, if anything.
        what: names the work, such as `evaluation`.
        unit: of the items, in the plural where there are no bars.
        total: number of items, where `items` has no length.
        shown: False for silence.
    """
    if not shown or shows_bars():
        return tqdm(items, what, total, leave=False, file=sys.stderr, unit=unit, delay=FIRST_LINE, disable=not shown)
    return _Lines(items, what, total, unit=unit)


class _Lines(tqdm):  # type: ignore[type-arg]
    """Writes lines to the log instead of drawing."""

    def __init__(self, items: Iterable[Any] | None, what: str, total: int | None, *, unit: str) -> None:
        # miniters=1: otherwise tqdm skips looking at the clock for as many items as fit between two lines.
        super().__init__(
            items, what, total, leave=False, unit=unit, delay=FIRST_LINE, mininterval=FIRST_LINE, miniters=1
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:  # noqa: ARG002
        """Called by tqdm whenever the bar is to be drawn."""
        if self.n and (self.total is None or self.n < self.total):
            self.mininterval = NEXT_LINES
            form = _FORM if self.total else _FORM_WITHOUT_TOTAL
            _logger.info("%s", self.format_meter(**{**self.format_dict, "bar_format": form, "ncols": None}))

    def close(self) -> None:
        """End without a further line."""
        self.disable = True
