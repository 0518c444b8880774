"""Draws the figures of docs/idea.md from the offsets the code uses: `python scripts/draw_staircase.py [FOLDER]`."""

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cyclemlp.files import atomic_write
from cyclemlp.ops.cycle_fc import cycle_offsets

CHANNELS, POSITIONS, HERE = 9, 9, 4
QUIET, EDGE, INK, MUTED = "#eef1f5", "#cfd6df", "#1f2933", "#66727f"
STEP_COLOURS = {-1: "#e0a100", 0: "#2f6db5", 1: "#2a9d74"}

Cells = dict[tuple[int, int], str]
"""(column, row) -> colour of the cells that are read."""


def main() -> None:
    """Write staircase.svg and reach.svg into the folder given, docs/images otherwise."""
    default = Path(__file__).parents[1] / "docs" / "images"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    # outlines instead of fonts and a fixed salt: the same file on every machine
    mpl.rcParams.update({"svg.hashsalt": "cyclemlp", "font.family": "DejaVu Sans", "text.color": INK})
    for name, figure in {"staircase.svg": draw_staircase(), "reach.svg": draw_reach()}.items():
        with atomic_write(folder / name) as part:
            figure.savefig(part, format="svg", metadata={"Date": None}, facecolor="white")


def draw_staircase() -> Figure:
    """What one output position reads, in three kinds of layer: channels upwards, positions of one row sideways."""
    channel_fc = {(HERE, c): STEP_COLOURS[0] for c in range(CHANNELS)}
    spatial_fc = {(j, 4): STEP_COLOURS[0] for j in range(POSITIONS)}
    steps = [cycle_offsets(c, (1, 3))[1] for c in range(CHANNELS)]
    cycle_fc = {(HERE + step, c): STEP_COLOURS[step] for c, step in enumerate(steps)}
    figure = Figure(figsize=(11, 4.1))
    panels: list[tuple[str, str, Cells]] = [
        ("Channel FC", "all channels of one position:\nany size, but sees one position", channel_fc),
        ("Spatial FC (MLP-Mixer)", "all positions of one channel: sees\neverything, but at one size only", spatial_fc),
        ("Cycle FC, step size 3", "all channels, each one step aside:\nany size, and sees three positions", cycle_fc),
    ]
    for number, (title, caption, cells) in enumerate(panels):
        axes = figure.add_axes((0.045 + number * 0.325, 0.09, 0.28, 0.72))
        _grid(axes, CHANNELS, POSITIONS, cells)
        _titles(axes, title, caption)
        axes.text(POSITIONS / 2, -0.45, "position along the width", ha="center", va="top", fontsize=8.5, color=MUTED)
        axes.text(-0.35, CHANNELS / 2, "channel", ha="right", va="center", rotation=90, fontsize=8.5, color=MUTED)
        _mark_output(axes)
    legend = "dashed: the position whose output is computed;  filled: what its output is computed from"
    figure.text(0.5, 0.02, legend, ha="center", fontsize=8.5, color=MUTED)
    for c, step in enumerate(steps):
        label = f"{step:+d}".replace("-", "−") if step else "0"
        axes.text(POSITIONS + 0.2, c + 0.5, label, va="center", fontsize=9, color=STEP_COLOURS[step], weight="bold")
    return figure


def draw_reach() -> Figure:
    """The positions of the image that reach one output position through 1, 2 and 4 blocks."""
    figure = Figure(figsize=(11, 4.0))
    size, middle = 11, 5
    for number, blocks in enumerate((1, 2, 4)):
        distance = _blocks_needed(size, middle, blocks)
        shades = ["#17406f", "#2f6db5", "#6a9bd1", "#9dbfe4", "#cadef3"]
        axes = figure.add_axes((0.03 + number * 0.325, 0.02, 0.29, 0.82))
        _grid(axes, size, size, {cell: shades[steps] for cell, steps in distance.items()})
        noun = "block" if blocks == 1 else "blocks"
        _titles(axes, f"{blocks} {noun}", f"{len(distance)} positions reach the one in the middle")
    return figure


def _blocks_needed(size: int, middle: int, blocks: int) -> dict[tuple[int, int], int]:
    """(column, row) of the positions within reach -> blocks it takes, from the offsets of a block's two branches."""
    moves = {cycle_offsets(c, step) for c in range(3) for step in ((1, 3), (3, 1))}
    distance = {(middle, middle): 0}
    for block in range(1, blocks + 1):
        for column, row in list(distance):
            for down, right in moves:
                distance.setdefault((column + right, row + down), block)
    return {(x, y): steps for (x, y), steps in distance.items() if 0 <= x < size and 0 <= y < size}


def _grid(axes: Axes, rows: int, columns: int, coloured: Cells) -> None:
    for row in range(rows):
        for column in range(columns):
            colour = coloured.get((column, row))
            axes.add_patch(
                FancyBboxPatch(
                    (column + 0.1, row + 0.1),
                    0.8,
                    0.8,
                    boxstyle="round,pad=0,rounding_size=0.14",
                    facecolor=colour or QUIET,
                    edgecolor=colour or EDGE,
                    linewidth=0.8,
                )
            )
    axes.set(xlim=(-0.6, columns + 0.9), ylim=(-0.9, rows + 0.1), aspect="equal")
    axes.axis("off")


def _titles(axes: Axes, title: str, caption: str) -> None:
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
    axes.annotate(caption, (0.5, 1.0), (0, 4), **place, fontsize=9, color=MUTED)
    above = 4 + 13 * (1 + caption.count("\n"))  # points
    axes.annotate(title, (0.5, 1.0), (0, above), **place, fontsize=12.5, weight="bold")


def _mark_output(axes: Axes) -> None:
    """A frame around the column whose output is computed."""
    axes.add_patch(
        FancyBboxPatch(
            (HERE, 0),
            1,
            CHANNELS,
            boxstyle="round,pad=0.02,rounding_size=0.16",
            facecolor="none",
            edgecolor=INK,
            linewidth=1.3,
            linestyle=(0, (3, 2)),
        )
    )


if __name__ == "__main__":
    main()
