"""The tables of benchmarks, as Markdown, from their files in results/; `render_results.py` puts them into the pages."""

from typing import Any


def bench_op(result: dict[str, Any]) -> str:
    """CycleFC against the authors' deformable convolution and a plain linear layer, forward."""
    rows = []
    for case in result["cases"]:
        if case["pass"] != "forward":
            continue
        medians = [f"{1e3 * operator['median_s']:.2f}" for operator in case["operators"].values()]
        ratios = [case["times_faster_than_deform_conv2d"], case["time_over_linear"]]
        rows.append(["x".join(map(str, case["shape_nhwc"])), *medians, *(f"{r:.1f}" if r else "-" for r in ratios)])
    head = ["input (NHWC)", "CycleFC, ms", "deform_conv2d, ms", "linear, ms", "deform / ours", "ours / linear"]
    return f"{table(head, rows)}\n\n{source(result)}"


def bench_active(result: dict[str, Any]) -> str:
    """ActiveMLP's layer against the authors' deformable convolution, forward and with the backward pass."""
    rows = []
    for case in result["cases"]:
        medians = [f"{1e3 * operator['median_s']:.1f}" for operator in case["operators"].values()]
        shape = "x".join(map(str, case["shape_nhwc"]))
        rows.append(
            [shape, str(case["share"]), case["pass"], *medians, _ratio(case["times_faster_than_deform_conv2d"])]
        )
    head = ["input (NHWC)", "share", "pass", "ours, ms", "deform_conv2d, ms", "deform / ours"]
    return f"{table(head, rows)}\n\n{measured(result)}"


def windows(result: dict[str, Any]) -> str:
    """How much a mask changes where its image is seen in windows."""
    rows = [
        [str(row["window"]), str(row["overlap"]), f"{100 * row['other_class']:.3f} %",
         f"{row['mean_difference']:.4f}", f"{row['largest_difference']:.2f}"]
        for row in result["rows"]
    ]  # fmt: skip
    head = ["window", "overlap", "pixels of another class", "mean difference of probabilities", "largest"]
    what = f"{result['images']} images through `{result['model']}` with {result['head']}."
    return f"{table(head, rows)}\n\n{what} {source(result)}"


def window_statistics(result: dict[str, Any]) -> str:
    """What the means of the re-weighting change where an image is seen in windows, by head."""
    sources = {"window": "each window", "reduced": "the image at the size of a window", "whole": "the whole image"}
    sources["exact"] = "the whole image, as everything else"
    rows = [
        [row["head"], str(row["window"] or "`--exact`"), sources[row["means_of"]], f"{100 * row['other_class']:.3f} %",
         f"{row['mean_difference']:.4f}" if row["window"] else f"{row['mean_difference']:.0e}",
         f"{row['largest_difference']:.2f}" if row["window"] else f"{row['largest_difference']:.0e}"]
        for row in result["rows"]
    ]  # fmt: skip
    head = ["head", "window", "means of", "pixels of another class", "mean difference of probabilities", "largest"]
    seen = f"{result['images']} images of {result['edge']} pixels through `{result['model']}`"
    what = f"{seen}, trained for {result['steps']} steps."
    return f"{table(head, rows)}\n\n{what} {source(result)}"


def window_objects(result: dict[str, Any]) -> str:
    """How the objects of an image differ where it is seen in windows, by detector."""
    rows = [
        [run["head"], str(row["window"]), str(row["overlap"]), str(row["whole"]), f"{100 * row['kept']:.1f} %",
         f"{100 * row['added']:.1f} %", f"{row['box_difference']:.2f}", f"{row['score_difference']:.3f}",
         f"{row['mask_iou']:.3f}" if "mask_iou" in row else "-"]
        for run in result["detectors"] for row in run["rows"]
    ]  # fmt: skip
    head = ["head", "window", "overlap", "objects of the whole image", "found in windows", "found in windows alone"]
    head += ["mean difference of boxes, pixels", "of scores", "mean IoU of masks"]
    seen = [f"{run['images']} images of {run['data']} for {run['head']}" for run in result["detectors"]]
    what = f"{'; '.join(seen)}, `{result['detectors'][0]['model']}`, trained for minutes."
    return f"{table(head, rows)}\n\n{what} {source(result)}"


def scene_memory(result: dict[str, Any]) -> str:
    """Peak memory on scenes of one width."""
    rows = [
        [f"{row['width']} x {row['height']}{', `--exact`' * row.get('exact', False)}",
         f"{row['peak_bytes'] / 1e9:.2f}", f"{row['file_bytes'] / 1e9:.1f}" if "file_bytes" in row else "-",
         f"{row['seconds'] / 60:.1f}"]
        for row in result["rows"]
    ]  # fmt: skip
    what = f"`{result['model']}` with {result['head']} and {result['classes']} classes."
    head = ["scene, pixels", "peak memory, GB", "temporary files, GB", "minutes"]
    return f"{table(head, rows)}\n\n{what} {source(result)}"


def bench_compare(result: dict[str, Any]) -> str:
    """Ours over each rival, with the targets."""
    rows = []
    for row in result["rows"]:
        sign = "at least" if row["target_is"] == "at least" else "at most"
        met = {True: "yes", False: "no", None: "-"}[row["met"]]
        times = [f"{1e3 * row['over_s']:.1f} / {1e3 * row['under_s']:.1f}", _ratio(row["ratio"])]
        rows.append(
            [str(row["size"]), str(row["batch"]), f"{row['over']} / {row['under']}", " / ".join(row["runtimes"]),
             *times, f"{sign} {row['target']:g}", met]
        )  # fmt: skip
    head = ["image", "batch", "time of / over", "in", "ms", "ratio", "target", "met"]
    return f"{table(head, rows)}\n\n{measured(result)}"


def bench_train(result: dict[str, Any]) -> str:
    """A training step: time, and what it takes in memory."""
    rows = [
        [name, f"{1e3 * step['median_s']:.0f}", _megabytes(step["step_bytes"]), _megabytes(step["kept_bytes"])]
        for name, step in result["steps"].items()
    ]
    faster, memory = _ratio(result["times_faster_than_authors"]), _ratio(result["memory_over_authors"])
    note = (
        f"{result['model']}, batch {result['batch']} at {result['size']}. The authors' operator takes {faster} times as"
        f" long as ours (target: at least {result['target_times_faster']:g}); ours takes {memory} of its step memory"
        f" (target: at most {result['target_memory']:g}) and {_ratio(result['kept_over_authors'])} of what it keeps."
    )
    head = ["training step", "ms", "step memory, MB", "kept, MB"]
    return f"{table(head, rows)}\n\n{note} {measured(result)}"


def bench_heads(result: dict[str, Any]) -> str:
    """A training step of whole networks with their default heads over that of the backbone; misses in bold."""

    def cell(ratio: float | None) -> str:
        return "-" if ratio is None else f"{ratio:.2f}" if ratio <= result["target"] else f"**{ratio:.2f}**"

    rows = [
        [name, ", ".join(str(each) for each in (task["head"], task["head_width"]) if each), str(task["size"]),
         cell(task["operations"]), cell(task["time"])]
        for name, task in result["tasks"].items()
    ]  # fmt: skip
    rendered = table(["task", "head, width", "pixels", "operations", "time of a step"], rows)
    return f"{rendered}\n\nTarget: at most {result['target']:g} times `{result['model']}` alone. {measured(result)}"


def bench_scale(result: dict[str, Any]) -> str:
    """Time and memory by size with the fitted exponents, and by batch."""
    sizes = sorted({point["size"] for curve in result["models"].values() for point in curve["points"]})
    rows = []
    for name, curve in result["models"].items():
        found = {point["size"]: _time_and_memory(point) for point in curve["points"]}
        fitted = [_ratio(curve["time_exponent"]), _ratio(curve["memory_exponent"])]
        rows.append([name, *(found.get(size, "") for size in sizes), *fitted])
    rendered = table(["ms (MB)", *map(str, sizes), "time exponent", "memory exponent"], rows)
    batches = result["batches"]
    row = [f"{batches['model']} at {batches['size']}", *map(_time_and_memory, batches["points"])]
    by_batch = table(["batch", *(str(point["batch"]) for point in batches["points"])], [row])
    left_out = [
        f"{name} from {curve['left_out']['size']} on: {curve['left_out']['reason']}."
        for name, curve in result["models"].items()
        if curve["left_out"]
    ]
    note = " ".join([f"Exponents are fitted from {result['fitted_from']} on.", *left_out])
    return f"{rendered}\n\n{by_batch}\n\n{note} {measured(result)}"


def bench_loader(result: dict[str, Any]) -> str:
    """What the loader delivers over what a step takes, alone and while training."""
    rows = [
        [count, *(text for name, share in (("alone", "over_step"), ("training", "training_over_step"))
                  for text in (f"{found[name]['images_per_s']:.0f}", _ratio(found[share])))]
        for count, found in result["workers"].items()
    ]  # fmt: skip
    head = ["workers", "reading alone, images/s", "over the step", "while training, images/s", "over the step"]
    note = (
        f"{result['model']} at {result['size']}, batch {result['batch']}: a step takes"
        f" {result['step']['images_per_s']:.1f} images/s from memory. Pictures: {result['pictures']['kind']}."
    )
    return f"{table(head, rows)}\n\n{note} {measured(result)}"


def fuzz(result: dict[str, Any]) -> str:
    """How many damaged files of each kind have a result, are refused in a line, or show a fault."""
    rows = [[name, *map(str, counts.values())] for name, counts in result["subjects"].items()]
    sums = [sum(column) for column in zip(*(counts.values() for counts in result["subjects"].values()), strict=True)]
    rows.append(["all", *map(str, sums)])
    note = f"{result['cases']} damaged files, seed {result['seed']}."
    return f"{table(['files', *next(iter(result['subjects'].values()))], rows)}\n\n{note} {source(result)}"


def faults(result: dict[str, Any]) -> str:
    """How many operations on files met a fault, and what was wrong afterwards."""
    rows = [
        [f"{name}, {fault}", *map(str, counts.values())]
        for name, by_fault in result["commands"].items()
        for fault, counts in by_fault.items()
    ]
    kinds = next(iter(next(iter(result["commands"].values())).values()))
    meaning = "; ".join(f"{name} is {text}" for name, text in result["faults"].items())
    chosen = "" if result["every"] == 1 else f" One in {result['every']} of the operations, evenly spread."
    return f"{table(['command and fault', *kinds], rows)}\n\n{meaning}.{chosen} {source(result)}"


def _time_and_memory(point: dict[str, Any]) -> str:
    return f"{1e3 * point['median_s']:.0f} ({_megabytes(point['forward_bytes'])})"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f}"


def source(result: dict[str, Any]) -> str:
    """One line that says where the numbers come from."""
    made = result["environment"]
    torch = _all(made["versions"], "torch")
    commit = f"commit {_all(made['commit'])}" if made["commit"] else f"version {_all(made['versions'], 'cyclemlp')}"
    return (
        f"*Measured by us: `{made['command']}` at {commit}, {made['date'][:10]}, {_all(made['processor'])}, "
        f"{_all(made['threads'])} threads, torch {torch}.*"
    )


def _all(value: Any, key: str | None = None) -> str:
    """A fact about the runs of a result, or all different ones where they do not agree."""
    values = value if isinstance(value, list) else [value]
    return ", ".join(dict.fromkeys(str(each if key is None else each[key]) for each in values))


def measured(result: dict[str, Any]) -> str:
    """The source of a benchmark, and how disturbed it was."""
    if not result["busy"]:
        return source(result)
    share = 100 * result["foreign_share"]
    return f"{source(result)} **Other programs used {share:.0f} % of the machine meanwhile: for orientation only.**"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
