"""The figures of the benchmarks' records. All raise MissingExtraError where matplotlib is not installed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cyclemlp.errors import MissingExtraError
from cyclemlp.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECADES = 4
"""Energies more than this many powers of ten below the maximum are drawn in one colour."""


def draw_pareto(record: Mapping[str, Any], path: Path) -> None:
    """Published accuracy against measured latency, in the format of `path`'s suffix (.svg, .png, .pdf)."""
    figure, (axes,) = _plots("latency at 224x224, batch 1, ms", "ImageNet-1K top-1, %, as published")
    for point in record["pareto"]:
        ours = point["model"].startswith("cyclemlp")
        axes.plot(1e3 * point["s"], point["top1"], "o" if ours else "s", color="tab:blue" if ours else "tab:gray")
        at, name = (1e3 * point["s"], point["top1"]), point["model"].split("_patch")[0]
        axes.annotate(name, at, xytext=(5, 4), textcoords="offset points")
    axes.margins(x=0.3, y=0.1)  # room for the names
    _save(figure, path)


def draw_scale(record: Mapping[str, Any], path: Path) -> None:
    """Time and memory of a forward pass against the image's edge, both axes logarithmic."""
    figure, (times, memory) = _plots("edge of the image, pixels", "time of a forward pass, s", "memory it takes, MB")
    for name, curve in record["models"].items():
        points = [point for point in curve["points"] if point["forward_bytes"]]
        times.loglog([p["size"] for p in curve["points"]], [p["median_s"] for p in curve["points"]], "o-", label=name)
        memory.loglog([p["size"] for p in points], [p["forward_bytes"] / 1e6 for p in points], "o-", label=name)
    sizes = sorted({point["size"] for curve in record["models"].values() for point in curve["points"]})
    for axes in (times, memory):
        axes.minorticks_off()
        axes.set_xticks(sizes, list(map(str, sizes)))
    times.legend()
    _save(figure, path)


def draw_resolution(record: Mapping[str, Any], path: Path) -> None:
    """FLOPs, latency and accuracy against the size of the test images; what is published is dashed."""
    titles = ("FLOPs, G", f"latency in {record['runtime']}, ms", "top-1, %")
    figure, (flops, latency, accuracy) = _plots("edge of the test images, pixels", *titles)
    for curve in record["curves"]:
        label = curve["model"] + (" (one size)" if curve["note"] else "")
        sizes = [point["size"] for point in curve["points"]]
        flops.plot(sizes, [point["flops"] / 1e9 for point in curve["points"]], "o-", label=label)
        times = [1e3 * point["runtimes"][record["runtime"]]["median_s"] for point in curve["points"]]
        latency.plot(sizes, times, "o-", label=label)
    published, ours = record["published"], record["accuracy"]
    for name, values in published["top1"].items():
        accuracy.plot(published["sizes"], values, "--", label=f"{name}, ImageNet-1K, published")
    if ours is not None:
        sizes, label = [point["size"] for point in ours["points"]], f"{ours['model']}, run {ours['run']}, measured"
        accuracy.plot(sizes, [100 * point["top1"] for point in ours["points"]], "o-", label=label)
    for axes in (flops, latency, accuracy):
        axes.legend(fontsize=8)
    _save(figure, path)


def draw_heat_maps(heat_maps: Sequence[tuple[str, str, npt.NDArray[np.float64]]], path: Path) -> None:
    """(title, caption, energies) side by side, each relative to its own maximum, on a logarithmic scale."""
    figure = _figure(3.4 * len(heat_maps) + 0.8, 4)
    row = figure.subplots(1, len(heat_maps), squeeze=False)[0]
    for axes, (title, caption, heat) in zip(row, heat_maps, strict=True):
        relative = np.log10(np.maximum(heat / heat.max(), 10.0**-DECADES))
        shown = axes.imshow(relative, cmap="magma", vmin=-DECADES, vmax=0)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(caption, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(shown, ax=row.tolist(), label="energy over the maximum, power of ten", shrink=0.7)
    _save(figure, path)


def _plots(x: str, *ys: str) -> "tuple[Figure, list[Axes]]":
    """A figure with a plot for each of `ys`, side by side."""
    figure = _figure(1 + 6 * len(ys), 4.5)
    plots = list(figure.subplots(1, len(ys), squeeze=False)[0])
    for axes, y in zip(plots, ys, strict=True):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.3)
    return figure, plots


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train") from error
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    with atomic_write(path) as part:
        figure.savefig(part, dpi=120)
