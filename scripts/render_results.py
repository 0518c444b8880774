"""Write the tables of README.md and docs/ from the files in results/, between their markers.

    python scripts/render_results.py            # rewrite
    python scripts/render_results.py --check    # exit status 1 where a page differs from its results

A page marks a place with `<!-- results:NAME -->` and `<!-- /results:NAME -->`; NAME is a file in results/.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_PLACE = re.compile(r"(<!-- results:([\w-]+) -->\n)(.*?)(<!-- /results:\2 -->)", re.DOTALL)


def demo(result: dict[str, Any]) -> str:
    """Held-out IoU of `cyclemlp demo`."""
    metrics, training = result["metrics"], result["training"]
    names = [*metrics["IoU"], "mean"]
    values = [*metrics["IoU"].values(), metrics["mIoU"]]
    table = _table(["held-out IoU", *names], [["cyclemlp_nano, Semantic FPN", *(f"{value:.3f}" for value in values)]])
    return (
        f"{table}\n\n{training['steps']} steps in {training['seconds'] / 60:.1f} minutes of training. {source(result)}"
    )


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
    return f"{_table(head, rows)}\n\n{source(result)}"


def classification(result: dict[str, Any]) -> str:
    """Top-1 of runs of one length on one data set, and of the baseline."""
    classes = result["classes"]
    rows = [
        [run["model"], f"{run['parameters'] / 1e6:.1f} M", str(run["steps"]), *_accuracies(run["metrics"], classes)]
        for run in sorted(result["runs"], key=lambda run: -run["metrics"]["top1"])
    ]
    rows.append([result["baseline"]["model"], "", "", *_accuracies(result["baseline"]["metrics"], classes)])
    head = ["model", "parameters", f"steps in {result['runs'][0]['budget']}", "top-1", *classes]
    return f"{_table(head, rows)}\n\n{source(result)}"


def _accuracies(metrics: dict[str, Any], classes: list[str]) -> list[str]:
    return [f"{metrics['top1']:.3f}", *(f"{metrics['accuracy'][name]:.3f}" for name in classes)]


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "demo": demo,
    "bench-op": bench_op,
    "classification": classification,
}


def source(result: dict[str, Any]) -> str:
    """One line that says where the numbers come from."""
    made = result["environment"]
    versions = made["versions"]
    return (
        f"*Measured by us: `{made['command']}` at commit {made['commit']}, {made['date'][:10]}, {made['processor']}, "
        f"{made['threads']} threads, torch {versions['torch']}.*"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def render(page: str) -> str:
    """The page with every marked place filled from its result file; places without a file stay as they are."""

    def fill(match: re.Match[str]) -> str:
        begin, name, _, end = match.groups()
        path = ROOT / "results" / f"{name}.json"
        if not path.is_file():
            return match[0]
        return f"{begin}\n{TABLES[name](json.loads(path.read_text(encoding='utf-8')))}\n\n{end}"

    return _PLACE.sub(fill, page)


def main() -> int:
    """Rewrite or check; gives the exit status."""
    stale = [page for page in PAGES if render(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")]
    for page in stale:
        if "--check" in sys.argv:
            sys.stderr.write(f"{page.relative_to(ROOT)} differs from results/: run scripts/render_results.py\n")
        else:
            page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
