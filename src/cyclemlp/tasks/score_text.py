"""Scores as lines of text."""

from collections.abc import Sequence
from typing import NamedTuple

MAX_CLASSES_LISTED = 100
"""With more classes, the scores of single classes are left out of tables and curves."""


class ScoreTable(NamedTuple):
    """Further scores, for people."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def score_lines(rows: Sequence[tuple[str, float | None]], title: str) -> list[str]:
    """Scores as aligned columns under `title`."""
    width = max(len("class"), *(len(name) for name, _ in rows))
    shown = [(name, "absent" if value is None else f"{value:.4f}") for name, value in rows]
    return [f"{'class':{width}}  {title:>6}", *(f"{name:{width}}  {score:>6}" for name, score in shown)]


def further_lines(tables: Sequence[ScoreTable]) -> list[str]:
    """Tables as aligned columns, each after a line with its title."""
    lines: list[str] = []
    for title, head, rows in tables:
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        aligned = (
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)
        )
        lines += [title, *aligned]
    return lines
