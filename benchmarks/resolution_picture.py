"""The picture of `cyclemlp bench resolution`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclemlp.errors import MissingExtraError
from cyclemlp.files import atomic_write


def draw_resolution(record: Mapping[str, Any], path: Path) -> None:
    """FLOPs, latency and accuracy side by side; what is published is dashed.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train") from error
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    flops, latency, accuracy = figure.subplots(1, 3)
    _draw_cost(flops, latency, record)
    _draw_accuracy(accuracy, record)
    titles = ("FLOPs, G", f"latency in {record['runtime']}, ms", "top-1, %")
    for axes, title in zip((flops, latency, accuracy), titles, strict=True):
        axes.set_xlabel("edge of the test images, pixels")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with atomic_write(path) as part:
        figure.savefig(part, dpi=110)


def _draw_cost(flops: Any, latency: Any, record: Mapping[str, Any]) -> None:
    for curve in record["curves"]:
        label = curve["model"] + (" (one size)" if curve["note"] else "")
        sizes = [point["size"] for point in curve["points"]]
        flops.plot(sizes, [point["flops"] / 1e9 for point in curve["points"]], "o-", label=label)
        times = [1e3 * point["runtimes"][record["runtime"]]["median_s"] for point in curve["points"]]
        latency.plot(sizes, times, "o-", label=label)


def _draw_accuracy(axes: Any, record: Mapping[str, Any]) -> None:
    published = record["published"]
    for name, values in published["top1"].items():
        axes.plot(published["sizes"], values, "--", label=f"{name}, ImageNet-1K, published")
    ours = record["accuracy"]
    if ours is not None:
        sizes = [point["size"] for point in ours["points"]]
        label = f"{ours['model']}, run {ours['run']}, measured"
        axes.plot(sizes, [100 * point["top1"] for point in ours["points"]], "o-", label=label)
