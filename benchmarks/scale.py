"""Time and memory of a forward pass as images and batches grow: what is linear in the pixels stays usable.

Every point is a process of its own. It builds the network for the size, ours in its exact inference form, and runs it
once to warm up, once for the memory (the maximum resident during that pass minus what was resident before, with weights
and images loaded) and then several times for the time. PyTorch in eager mode throughout.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from benchmarks import peak
from benchmarks.figures import draw_scale
from benchmarks.fresh import in_fresh_process, pinned_cores
from benchmarks.memory import available_bytes, grown_bytes
from benchmarks.records import command_line
from cyclemlp.cli.bench_output import (
    Json,
    Numbers,
    Out,
    Threads,
    aligned,
    check_out,
    check_positive,
    deliver,
    megabytes,
    milliseconds,
)
from cyclemlp.inference.rounds import DEFAULT_THREADS, Case, Plan, Timing
from cyclemlp.machine import BUSY_SHARE, ForeignLoad, environment, peak_bytes

SIZES = (224, 512, 1024, 2048, 4096)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
LARGEST = {
    "cyclemlp_nano": 4096,
    "cyclemlp_b1": 4096,
    "swin_tiny_patch4_window7_224": 2048,
    "mixer_s16_224": 2048,
}
"""The networks and the largest size of each with which the whole takes under six minutes on two cores."""
BATCH_MODEL, BATCH_SIZE = "cyclemlp_nano", 224
FITTED_FROM = 512
"""Smaller images do not count in the exponents: fixed costs show in them."""
MIN_RUNS, MAX_RUNS, ENOUGH_SECONDS = 2, 7, 3.0
"""A point is run until it has the maximum number of runs or the seconds have passed."""


def scale(
    names: tuple[str, ...] = (),
    /,
    *,
    size: Numbers = SIZES,
    batch: Numbers = BATCHES,
    most_seconds: float = 60.0,
    threads: Threads = DEFAULT_THREADS,
    plot: Path | None = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Time forward passes on larger and larger images, and nano at 224 on larger batches, each in a fresh process.

    Memory is the maximum resident during a pass minus what was resident before it, with weights and images loaded.
    Exponents are in the number of pixels, fitted from 512 on: 1 is linear. About five minutes.

    Parameters
    ----------
    names
        Models, by their timm names, to every size; by default nano and B1 to 4096, Swin-T and MLP-Mixer-S/16 to 2048.
    size
        Edges of the square images, in pixels.
    batch
        Images per pass, for nano.
    most_seconds
        A pass that would take longer is left out, and so are larger ones.
    plot
        Draw time and memory against size into this file, such as docs/images/scale.svg.
    """
    check_out(out, "bench-scale.json")
    check_positive(size=size, batch=batch)
    largest = dict.fromkeys(names, max(size)) if names else LARGEST
    plan, limits = Plan(threads=threads), Limits(most_seconds)
    record = bench_scale(plan, largest, sizes=size, batches=batch, limits=limits, command=command_line())
    if plot is not None:
        draw_scale(record, plot)
    deliver(record, _table(record), out, json)


@dataclass(frozen=True)
class Limits:
    """Points that are expected to exceed these are left out, judged by the point before them."""

    seconds: float = 60.0
    """Time of one forward pass."""
    memory: int | None = None
    """Bytes of one forward pass; None is what is free."""

    def reason(self, before: Mapping[str, Any], times_larger: float) -> str | None:
        """Why the point with this many times the pixels of `before` is left out, or None."""
        seconds = before["median_s"] * times_larger
        if seconds > self.seconds:
            return f"a pass would take about {seconds:.0f} s, more than {self.seconds:g} s"
        free = available_bytes() if self.memory is None else self.memory
        wanted = (before["forward_bytes"] or 0) * times_larger
        if free is not None and wanted > free:
            return f"a pass would take about {wanted / 1e9:.1f} GB, more than the {free / 1e9:.1f} GB there are"
        return None


def bench_scale(
    plan: Plan,
    largest: Mapping[str, int] = LARGEST,
    *,
    sizes: Sequence[int] = SIZES,
    batches: Sequence[int] = BATCHES,
    limits: Limits = Limits(),
    command: str = "",
) -> dict[str, Any]:
    """Measure and return the record for JSON: each of `largest` up to its size, then nano by batch.

    Raises:
        ConfigError: an unknown model, or one that does not take a size.
    """
    curves = {
        name: _curve([(name, size, 1) for size in sorted(sizes) if size <= limit], plan.threads, limits)
        for name, limit in largest.items()
    }
    by_batch = _curve([(BATCH_MODEL, BATCH_SIZE, batch) for batch in sorted(batches)], plan.threads, limits)
    points = [point for curve in (*curves.values(), by_batch) for point in curve["points"]]
    shares = [point["foreign_share"] for point in points if point["foreign_share"] is not None]
    rates = [point["gflops_per_s"] for point in points]
    return {
        "bench": "scale",
        "environment": environment(command, plan.threads, points[0]["cores"]),
        "rounds": MAX_RUNS,
        "foreign_share": median(shares) if shares else None,
        "busy": bool(shares) and median(shares) > BUSY_SHARE,
        "matrix_product": {"gflops_per_s": median(rates)},
        "fitted_from": FITTED_FROM,
        "models": {name: curve | exponents(curve["points"]) for name, curve in curves.items()},
        "batches": {"model": BATCH_MODEL, "size": BATCH_SIZE, **by_batch},
    }


def _curve(points: Sequence[tuple[str, int, int]], threads: int, limits: Limits) -> dict[str, Any]:
    """The points in order of size, until one is over the limits."""
    measured: list[dict[str, Any]] = []
    for name, size, batch in points:
        if measured:
            last = measured[-1]
            reason = limits.reason(last, batch * size**2 / (last["batch"] * last["size"] ** 2))
            if reason is not None:
                return {"points": measured, "left_out": {"size": size, "batch": batch, "reason": reason}}
        measured.append(in_fresh_process(threads, measure_point, name, size, batch))
    return {"points": measured, "left_out": None}


def measure_point(name: str, size: int, batch: int) -> dict[str, Any]:
    """One point, in a process of its own."""
    import torch

    from benchmarks.subjects import Subject, inference_network

    product = peak.cases()[peak.NAME]
    with torch.inference_mode():
        network = inference_network(Subject(name, size, batch))
        images = torch.randn(batch, 3, size, size)
        network(images)  # what libraries set up once does not belong to the pass
        grown = grown_bytes(lambda: network(images))
        most = peak_bytes()
        load = ForeignLoad()
        timing = _repeated(lambda: network(images))
        rate = peak.gflops_per_second(_repeated(product))
    return {
        "size": size,
        "batch": batch,
        **timing.to_dict(),
        "forward_bytes": grown,
        "peak_process_bytes": most,
        "gflops_per_s": rate,
        "foreign_share": load.share(),
        "cores": pinned_cores(),
    }


def _repeated(case: Case) -> Timing:
    seconds: list[float] = []
    while len(seconds) < MIN_RUNS or (len(seconds) < MAX_RUNS and sum(seconds) < ENOUGH_SECONDS):
        start = time.perf_counter()
        case()
        seconds.append(time.perf_counter() - start)
    return Timing(tuple(seconds))


def exponents(points: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Of time and memory in the number of pixels, by least squares of the logarithms: 1 is linear, 2 quadratic."""
    fitted = [point for point in points if point["size"] >= FITTED_FROM]
    return {f"{what}_exponent": _exponent(fitted, key) for what, key in _MEASURES.items()}


_MEASURES = {"time": "median_s", "memory": "forward_bytes"}


def _exponent(points: Sequence[Mapping[str, Any]], key: str) -> float | None:
    if len(points) < 2 or not all(point[key] for point in points):
        return None
    pixels = [math.log(point["size"] ** 2) for point in points]
    return linear_regression(pixels, [math.log(point[key]) for point in points]).slope


def _table(record: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("model", "image", "batch", "ms", "MB")]
    batches = record["batches"]
    curves = [*record["models"].items(), (batches["model"], batches)]
    for name, curve in curves:
        rows += [
            (name, str(point["size"]), str(point["batch"]), milliseconds(point, 1), megabytes(point["forward_bytes"]))
            for point in curve["points"]
        ]
    lines = aligned(rows)
    for name, curve in curves:
        if curve["left_out"] is not None:
            left = curve["left_out"]
            lines.append(f"{name} at {left['size']}, batch {left['batch']}, is left out: {left['reason']}")
    for name, curve in record["models"].items():
        time, memory = (_shown(curve[f"{what}_exponent"]) for what in _MEASURES)
        lines.append(f"{name}: time ~ pixels^{time}, memory ~ pixels^{memory}")
    made = record["environment"]
    head = f"{made['processor']}, {made['threads']} threads, PyTorch eager; ms: median (interquartile range)"
    return "\n".join([head, "", *lines]) + "\n"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
