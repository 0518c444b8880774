"""`cyclemlp bench scale`: how time and memory grow with the image and with the batch."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cyclemlp.cli.bench_output import aligned, check_out, command_line, deliver, milliseconds
from cyclemlp.errors import ConfigError

_Several = Parameter(consume_multiple=True)


def scale(
    names: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    /,
    *,
    size: Annotated[tuple[int, ...], _Several] = (224, 512, 1024, 2048, 4096),
    batch: Annotated[tuple[int, ...], _Several] = (1, 2, 4, 8, 16, 32, 64),
    most_seconds: float = 60.0,
    threads: int | None = None,
    plot: Path | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time forward passes on larger and larger images, and nano at 224 on larger batches, each in a fresh process.

    Memory is the most resident during a pass less what was resident before it, with weights and images there already.
    Exponents are in the number of pixels, fitted from 512 on: 1 is linear. About five minutes.

    Parameters
    ----------
    names
        Models, by their timm names, to every size; by default nano and B1 to 4096, Swin-T and MLP-Mixer-S/16 to 2048.
    size
        Edges of the square images, in pixels.
    batch
        Images at a time, for nano.
    most_seconds
        A pass that would take longer is left out, and so are larger ones.
    threads
        Threads, pinned to as many cores (default 2).
    plot
        Draw time and memory against size into this file, such as docs/images/scale.svg.
    out
        Also write the JSON to this file, such as results/bench-scale.json.
    json
        Print one JSON object instead of a table.
    """
    from benchmarks.pictures import draw_scale
    from benchmarks.rounds import Plan
    from benchmarks.scale import LARGEST, Limits, bench_scale

    check_out(out, "bench-scale.json")
    for option, values in (("--size", size), ("--batch", batch)):
        for value in values:
            if value < 1:
                raise ConfigError(f"{option} {value} is not allowed: 1 or more")
    largest = dict.fromkeys(names, max(size)) if names else LARGEST
    plan = Plan() if threads is None else Plan(threads=threads)
    limits = Limits(most_seconds)
    record = bench_scale(plan, largest, sizes=size, batches=batch, limits=limits, command=command_line())
    if plot is not None:
        draw_scale(record, plot)
    deliver(record, _table(record), out, json)


def _table(record: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("model", "image", "batch", "ms", "MB")]
    batches = record["batches"]
    curves = [*record["models"].items(), (batches["model"], batches)]
    for name, curve in curves:
        rows += [
            (name, str(point["size"]), str(point["batch"]), milliseconds(point, 1), _megabytes(point["forward_bytes"]))
            for point in curve["points"]
        ]
    lines = aligned(rows)
    for name, curve in curves:
        if curve["left_out"] is not None:
            left = curve["left_out"]
            lines.append(f"{name} at {left['size']}, batch {left['batch']}, is left out: {left['reason']}")
    for name, curve in record["models"].items():
        lines.append(f"{name}: time ~ pixels^{_shown(curve['time_exponent'])}, {_memory(curve)}")
    made = record["environment"]
    head = f"{made['processor']}, {made['threads']} threads, PyTorch eager; ms: median (interquartile range)"
    return "\n".join([head, "", *lines]) + "\n"


def _memory(curve: dict[str, Any]) -> str:
    return f"memory ~ pixels^{_shown(curve['memory_exponent'])}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f}"
