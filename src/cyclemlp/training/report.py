"""report.html: what a run did, on one page that opens from disk and needs no other file."""

import base64
import html
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemlp.errors import MissingExtraError
from cyclemlp.files import write_text
from cyclemlp.tasks.base import MAX_CLASSES_LISTED, ScoreNames
from cyclemlp.tasks.card import CARD_NAME
from cyclemlp.tasks.registry import get_task
from cyclemlp.training.recorder import read_metrics
from cyclemlp.training.run_folder import read_run_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

REPORT_NAME = "report.html"
IMAGE_WIDTH = 1200
MAX_CLASS_CURVES = 8
"""With more classes only their mean is drawn."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fcfcfb; --line: #d9dbd7; --soft: #6a7076; --bar: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --paper: #16181b; --line: #34383d; --soft: #9aa1a8; --bar: #56b4e9; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin-top: 2.5rem }
p.soft, figcaption { color: var(--soft) }
table { border-collapse: collapse } td, th { padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--line);
  text-align: left; font-variant-numeric: tabular-nums }
td.bar { width: 14rem } td.bar span { display: block; height: .7rem; background: var(--bar); border-radius: 2px }
figure { margin: 0 0 1.5rem } img { max-width: 100%; border-radius: 4px } img.curve { background: #fff }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: 4px; padding: .8rem; font-size: .85rem }
"""


def write_report(
    run_dir: Path,
    samples: "Sequence[tuple[str, Image.Image]]" = (),
    figures: "Sequence[tuple[str, Figure]]" = (),
) -> Path:
    """Write `run_dir/report.html` from the folder's metrics.csv, model.json and config.yaml, and return its path.

    `samples` are titled images to show, predictions for example, and `figures` further plots; all are embedded in the
    page.
    """
    card = json.loads((run_dir / CARD_NAME).read_text(encoding="utf-8"))
    options, names = read_run_config(run_dir), get_task(card["task"]).scores
    title = f"{card['model']} with {card['head']}"
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="soft">{html.escape(card["source"])}; {html.escape(versions)}</p>',
        _scores(names, card["metrics"]),
        _figures(figures),
        _curves(read_metrics(run_dir), names),
        _examples(samples),
        _options(options),
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    page = "\n".join(part for part in sections if part)
    path = run_dir / REPORT_NAME
    write_text(path, f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{page}\n</body></html>\n')
    return path


def _scores(names: ScoreNames, metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return ""
    scores, sentences = metrics[names.per_class], names.sentences
    if names.main not in sentences:
        scores = {**scores, "mean": metrics[names.main]}
    shown = {name: metrics[name] for name in (names.main, *names.further) if name in sentences}
    below = "".join(f"<p>{sentences[name].format(100 * v)}</p>" for name, v in shown.items() if v is not None)
    table = ""
    if len(scores) <= MAX_CLASSES_LISTED:
        rows = "".join(_score_row(name, value) for name, value in scores.items())
        table = f"<table><tr><th>class</th><th>{names.per_class}</th></tr>{rows}</table>"
    return f"<h2>Scores on the validation images</h2>\n{table}{below}"


def _score_row(name: str, value: float | None) -> str:
    bar = "" if value is None else f'<span style="width:{100 * value:.1f}%"></span>'
    shown = "absent" if value is None else f"{value:.4f}"
    return f'<tr><td>{html.escape(name)}</td><td>{shown}</td><td class="bar">{bar}</td></tr>'


def _curves(rows: Sequence[Mapping[str, str]], names: ScoreNames) -> str:
    columns = list(rows[0]) if rows else []
    start = f"{names.per_class}/"
    classes = [name for name in columns if name.startswith(start)]
    scores = {"all": names.main, **{name.removeprefix(start): name for name in classes[:MAX_CLASS_CURVES]}}
    if len(classes) > MAX_CLASS_CURVES:
        scores = {"all": names.main}
    figures = []
    for title, lines in (("Loss", {"loss": "loss"}), ("Learning rate", {"lr": "lr"}), (names.per_class, scores)):
        series = {label: _series(rows, column) for label, column in lines.items()}
        series = {label: points for label, points in series.items() if points}
        if series:
            figures.append(f"<figure>{_plot(title, series, logarithmic=title == 'Loss')}</figure>")
    return f'<h2>Curves</h2>\n<div class="curves">{"".join(figures)}</div>' if figures else ""


def _series(rows: Sequence[Mapping[str, str]], name: str) -> list[tuple[int, float]]:
    return [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]


def _plot(title: str, series: Mapping[str, Sequence[tuple[int, float]]], *, logarithmic: bool) -> str:
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train") from error
    logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)  # it logs that it builds its cache
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, points in series.items():
        # A line through a single evaluation would be invisible.
        axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 20 else "", markersize=3, label=name)
    axes.set(title=title, xlabel="step", yscale="log" if logarithmic else "linear")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend(fontsize="small", frameon=False)
    return _drawing(title, figure)


def _drawing(title: str, figure: "Figure") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return _image(buffer.getvalue(), "png", title, "curve")


def _figures(figures: "Sequence[tuple[str, Figure]]") -> str:
    return "\n".join(
        f"<h2>{html.escape(title)}</h2>\n<figure>{_drawing(title, each)}</figure>" for title, each in figures
    )


def _examples(samples: "Sequence[tuple[str, Image.Image]]") -> str:
    figures = []
    for title, image in samples:
        small = image.convert("RGB")
        small.thumbnail((IMAGE_WIDTH, IMAGE_WIDTH))
        buffer = io.BytesIO()
        small.save(buffer, format="JPEG", quality=88)
        shown = _image(buffer.getvalue(), "jpeg", title, "sample")
        figures.append(f"<figure>{shown}<figcaption>{html.escape(title)}</figcaption></figure>")
    return "<h2>Predictions</h2>\n" + "\n".join(figures) if figures else ""


def _image(data: bytes, kind: str, alt: str, css_class: str) -> str:
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img class="{css_class}" alt="{html.escape(alt)}" src="data:image/{kind};base64,{encoded}">'


def _options(options: Mapping[str, Any]) -> str:
    lines = "\n".join(f"{name}: {value}" for name, value in options.items() if value is not None)
    return f"<h2>Options</h2>\n<pre>{html.escape(lines)}</pre>"
