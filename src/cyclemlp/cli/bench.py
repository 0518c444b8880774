"""`cyclemlp bench`: how fast networks are on this machine, in each runtime installed."""

from functools import partial
from typing import Annotated

from cyclopts import App, Parameter

from cyclemlp.cli import bench_output as output
from cyclemlp.errors import ConfigError
from cyclemlp.files import JsonObject
from cyclemlp.inference.rounds import DEFAULT_THREADS, Plan

app = App(name="bench")
SAMPLE_SECONDS = 0.5
"""A measurement repeats a network until about this much time has passed."""


@app.default
def bench(
    *targets: str,
    size: output.Numbers = (),
    batch: output.Numbers = (1,),
    runtime: output.Names = (),
    rounds: output.Rounds = 9,
    threads: output.Threads = DEFAULT_THREADS,
    out: output.Out = None,
    json: output.Json = False,
) -> None:
    """Time forward passes of networks on the processor, in each runtime installed.

    Each network and runtime has a process of its own; those of one size and batch take turns, round by round. Run
    folders and models are exported to temporary files for ONNX Runtime and OpenVINO. The time to read an image and to
    decode the network's outputs is not included.

    Parameters
    ----------
    targets
        Run folders, exported files (.onnx, .xml, .pt2), or names of models, which get random weights.
    size
        Edges of the square images, in pixels; by default what each network was trained on, or 224.
    batch
        Images per pass.
    runtime
        torch, onnx (ONNX Runtime) or openvino; by default all that are installed. Exported files run in their own.
    """
    from cyclemlp.export.speed import measure_speed

    if not targets:
        raise ConfigError("nothing to measure: give run folders, exported files or models (`cyclemlp models`)")
    output.check_out(out, "speed.json")
    output.check_positive(size=size, batch=batch)
    plan = Plan(rounds, SAMPLE_SECONDS, threads)
    command = output.command_line("cyclemlp")
    record = measure_speed(targets, plan, sizes=size, batches=batch, runtimes=runtime, command=command)
    output.deliver(record, _table(record), out, json)


def _table(record: JsonObject) -> str:
    made = record["environment"]
    rows = [("network", "runtime", "image", "batch", "ms", "images/s", "memory MB")]
    rows += [
        (each["target"], each["runtime"], str(each["size"]), str(each["batch"]), output.milliseconds(each, 1),
         f"{each['images_per_s']:.1f}", output.megabytes(each["peak_process_bytes"]))
        for each in record["results"]
    ]  # fmt: skip
    head = (
        f"{made['processor']}, {made['threads']} threads, {record['rounds']} rounds; ms: median (interquartile range)"
    )
    return "\n".join([head, "", *output.aligned(rows)]) + "\n"


def _refuse(advice: str, *_: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    raise ConfigError(advice)


_BENCHMARKS = ("compare", "train", "scale", "loader", "resolution", "receptive-field", "robustness")
for _old, _new in {"op": "operators", **dict(zip(_BENCHMARKS, _BENCHMARKS, strict=True))}.items():
    _advice = f"`bench {_old}` is now `python -m benchmarks {_new}`, run at the root of a checkout of cyclemlp"
    app.command(partial(_refuse, _advice), name=_old, show=False)
app.command(partial(_refuse, "`bench model NAME` is now `cyclemlp bench NAME`"), name="model", show=False)
