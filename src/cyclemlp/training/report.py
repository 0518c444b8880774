"""report.html: what a run did, on one page that opens from disk and needs no other file."""

import base64
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemlp.data.lettering import drawn_name, families_of
from cyclemlp.documents import read_json
from cyclemlp.errors import MissingExtraError
from cyclemlp.files import JsonMapping, JsonObject, write_text
from cyclemlp.tasks.base import ScoreNames
from cyclemlp.tasks.card import CARD_NAME
from cyclemlp.tasks.recipes import read_run_config
from cyclemlp.tasks.registry import get_task
from cyclemlp.tasks.score_text import MAX_CLASSES_LISTED, ScoreTable
from cyclemlp.training.recorder import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

REPORT_NAME = "report.html"
RAW_WEIGHTS = "raw_weights"
"""Key, in the metrics of a run, of the scores of its weights without their moving average."""
IMAGE_WIDTH = 1200
MAX_CLASS_CURVES = 8
"""With more classes only their mean is drawn."""


def write_report(
    run_dir: Path,
    samples: "Sequence[tuple[str, Image.Image]]" = (),
    figures: "Sequence[tuple[str, Figure]]" = (),
    tables: Sequence[ScoreTable] = (),
    doubts: str = "",
    early_end: str = "",
) -> Path:
    """Write `run_dir/report.html` from the folder's metrics.csv, model.json and config.yaml, and return its path.

    `samples` are titled images to show, predictions for example, and `figures` further plots; all are embedded in the
    page. `tables` follow those of the metrics. `doubts` says why the network is not trained to the end, and
    `early_end` why --patience ended the run; both are empty where that is not so.
    """
    try:
        from jinja2 import Environment
    except ModuleNotFoundError as error:
        raise MissingExtraError("jinja2", "train") from error
    card = read_json(run_dir / CARD_NAME)
    task = get_task(card["task"])
    names = task.scores
    template = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(template).render(
        title=f"{card['model']} with {card['head']}",
        source=card["source"],
        versions=", ".join(f"{name} {version}" for name, version in card["versions"].items()),
        score_name=names.per_class,
        doubts=doubts,
        early_end=early_end,
        **_scores(names, card["metrics"]),
        tables=[*task.score_tables(card["metrics"]), *tables],
        figures=[(title, _plot(figure)) for title, figure in figures],
        curves=list(_curves(read_metrics(run_dir), names)),
        samples=[(title, _photo(image)) for title, image in samples],
        options=read_run_config(run_dir),
    )  # fmt: skip
    write_text(run_dir / REPORT_NAME, page)
    return run_dir / REPORT_NAME


def _scores(names: ScoreNames, metrics: JsonMapping) -> JsonObject:
    """The table of scores by class, None without an evaluation, and sentences about further scores."""
    if not metrics:
        return {"scores": None}
    scores, sentences = metrics[names.per_class], names.sentences
    if names.main not in sentences:
        scores = {**scores, "mean": metrics[names.main]}
    values = {name: metrics[name] for name in (names.main, *names.further) if name in sentences}
    found = [sentences[name].format(100 * value) for name, value in values.items() if value is not None]
    if RAW_WEIGHTS in metrics:
        raw = metrics[RAW_WEIGHTS][names.main]
        found.append(f"These are scores of the moving average; without it {names.main} is {_percent(raw)}.")
    return {"scores": scores if len(scores) <= MAX_CLASSES_LISTED else {}, "sentences": found}


def _percent(share: float | None) -> str:
    return "not defined" if share is None else f"{100 * share:.2f} %"


def _curves(rows: Sequence[Mapping[str, str]], names: ScoreNames) -> Iterator[tuple[str, str]]:
    """Title and data URL of each plot."""
    start = f"{names.per_class}/"
    columns = [name for name in (rows[0] if rows else ()) if name.startswith(start)]
    classes = {drawn_name(name.removeprefix(start), number): name for number, name in enumerate(columns)}
    scores = {"all": names.main} | (classes if len(classes) <= MAX_CLASS_CURVES else {})
    for title, lines in (("Loss", {"loss": "loss"}), ("Learning rate", {"lr": "lr"}), (names.per_class, scores)):
        series = {
            label: [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
            for label, column in lines.items()
        }
        if any(series.values()):
            yield title, _plot(_drawn(title, series))


def _drawn(title: str, series: Mapping[str, Sequence[tuple[int, float]]]) -> "Figure":
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train") from error
    logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)  # it logs that it builds its cache
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, points in series.items():
        if points:  # a line through a single evaluation would be invisible
            # A label that begins with _ would be left out of the legend.
            label = f" {name}" if name.startswith("_") else name
            axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 20 else "", markersize=3, label=label)
    axes.set(title=title, xlabel="step", yscale="log" if title == "Loss" else "linear")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if len(axes.lines) > 1:
        for text in axes.legend(fontsize="small", frameon=False).get_texts():
            text.set_parse_math(False)  # names of classes are no formulas
            text.set_fontfamily(families_of([text.get_text()]))
    return figure


def _plot(figure: "Figure") -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(150)
    buffer = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(buffer)  # `savefig` would draw everything twice
    return _data_url(buffer, "png")


def _photo(image: "Image.Image") -> str:
    small, buffer = image.convert("RGB"), io.BytesIO()
    small.thumbnail((IMAGE_WIDTH, IMAGE_WIDTH))
    small.save(buffer, format="JPEG", quality=88)
    return _data_url(buffer, "jpeg")


def _data_url(buffer: io.BytesIO, file_format: str) -> str:
    return f"data:image/{file_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
