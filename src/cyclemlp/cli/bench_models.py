"""`cyclemlp bench model` and `bench compare`: whole networks."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cyclemlp.cli.bench_output import SPREAD_NOTE, aligned, check_out, command_line, deliver, heading, milliseconds
from cyclemlp.cli.bench_output import ratio as shown_ratio
from cyclemlp.errors import ConfigError

_Several = Parameter(consume_multiple=True)


def model(
    names: Annotated[tuple[str, ...], Parameter(negative=())] = ("cyclemlp_b1", "cyclemlp_b2"),
    /,
    *,
    size: Annotated[tuple[int, ...], _Several] = (224,),
    batch: Annotated[tuple[int, ...], _Several] = (1,),
    runtime: Annotated[tuple[str, ...], _Several] = ("eager", "onnx", "openvino"),
    rounds: int = 15,
    threads: int | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time whole networks, ours in their exact inference form, in several runtimes; rivals by their timm names.

    The bound is the network's multiply-adds at the rate of a matrix product of 1024x1024 measured in the same rounds.
    Memory is the most that each runtime's process held, its libraries included.

    Parameters
    ----------
    names
        Models, by their timm names.
    size
        Edges of the square images, in pixels.
    batch
        Images at a time.
    runtime
        eager, compile, onnx (ONNX Runtime) or openvino.
    rounds
        Measurements of each network and runtime; medians and interquartile ranges are over these.
    threads
        Threads, pinned to as many cores (default 2).
    out
        Also write the JSON to this file, such as results/bench-model.json.
    json
        Print one JSON object instead of a table.
    """
    from benchmarks.models import bench_models

    check_out(out, "bench-model.json")
    _positive("--size", size)
    _positive("--batch", batch)
    record = bench_models(names, size, batch, runtime, _plan(rounds, threads), command_line())
    deliver(record, _model_table(record), out, json)


def compare(
    *,
    rounds: int = 9,
    threads: int | None = None,
    plot: Path | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time B1 and B2 against ResNet-50, Swin-T, ConvNeXt-T, the authors' operator and the matrix-product bound.

    Each row takes the faster of ONNX Runtime and OpenVINO on either side, and has its target. About ten minutes.

    Parameters
    ----------
    rounds
        Measurements of each network and runtime; medians and interquartile ranges are over these.
    threads
        Threads, pinned to as many cores (default 2).
    plot
        Draw published accuracy against measured latency into this file, such as docs/images/pareto.svg.
    out
        Also write the JSON to this file, such as results/bench-compare.json.
    json
        Print one JSON object instead of a table.
    """
    from benchmarks.compare import bench_compare
    from benchmarks.pictures import draw_pareto

    check_out(out, "bench-compare.json")
    record = bench_compare(_plan(rounds, threads), command_line())
    if plot is not None:
        draw_pareto(record, plot)
    deliver(record, _compare_table(record), out, json)


def _plan(rounds: int, threads: int | None) -> Any:
    from benchmarks.models import SAMPLE_SECONDS
    from benchmarks.rounds import Plan

    if threads is None:
        return Plan(rounds=rounds, sample_seconds=SAMPLE_SECONDS)
    return Plan(rounds=rounds, sample_seconds=SAMPLE_SECONDS, threads=threads)


def _positive(option: str, values: tuple[int, ...]) -> None:
    for value in values:
        if value < 1:
            raise ConfigError(f"{option} {value} is not allowed: 1 or more")


def _model_table(record: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [
        ("model", "image", "batch", "params M", "FLOPs G", "bound ms", "runtime", "ms", "x bound", "memory MB")
    ]
    for each in record["models"]:
        start: tuple[str, ...] = (each["model"], str(each["size"]), str(each["batch"]), f"{each['params'] / 1e6:.1f}")
        start += (f"{each['flops'] / 1e9:.1f}", f"{1e3 * each['bound_s']:.1f}")
        for name, timing in each["runtimes"].items():
            memory = timing["peak_process_bytes"]
            shown = "-" if memory is None else f"{memory / 1e6:.0f}"
            over = shown_ratio(timing["over_bound"], "<=", None)
            rows.append((*start, name, milliseconds(timing, 1), over, shown))
    return "\n".join([heading(record), SPREAD_NOTE, "", *aligned(rows)]) + "\n"


def _compare_table(record: dict[str, Any]) -> str:
    rows = [("image", "batch", "time of", "over", "in", "ms", "over ms", "ratio", "target", "met")]
    for row in record["rows"]:
        sign = ">=" if row["target_is"] == "at least" else "<="
        met = {True: "yes", False: "no", None: "-"}[row["met"]]
        rows.append(
            (str(row["size"]), str(row["batch"]), row["over"], row["under"], " / ".join(row["runtimes"]),
             f"{1e3 * row['over_s']:.1f}", f"{1e3 * row['under_s']:.1f}", shown_ratio(row["ratio"], sign, None),
             f"{sign} {row['target']:g}", met)
        )  # fmt: skip
    return "\n".join([heading(record), SPREAD_NOTE, "", *aligned(rows)]) + "\n"
