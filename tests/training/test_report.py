import io
import re
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from cyclemlp.files import write_text
from cyclemlp.tasks.base import ScoreNames
from cyclemlp.tasks.card import ModelCard, save_model
from cyclemlp.tasks.classification.confusion import write_confusion
from cyclemlp.training.recorder import Recorder, read_metrics
from cyclemlp.training.report import _curves, _drawn, write_report

SCORES = ScoreNames("mIoU", "IoU", ())
CLASSES = ("sea", "<land & co>")


def run_folder(folder: Path) -> Path:
    metrics = {"mIoU": 0.5, "IoU": {"sea": 1.0, "<land & co>": None}, "pixel_accuracy": 0.9}
    card = ModelCard(task="segmentation", model="m", head="h", classes=CLASSES, metrics=metrics, source="a test")
    save_model(folder, nn.Linear(1, 1), card)
    write_text(folder / "config.yaml", "data: images & masks\nlr: 0.001\nwindow: null\n")
    recorder = Recorder(folder, ["step", "lr", "loss", "mIoU", "IoU/sea", "IoU/<land & co>"])
    recorder.add(1, {"loss": 2.0, "lr": 0.1})
    recorder.add(2, {"loss": 1.0, "lr": 0.05})
    recorder.add(2, {"mIoU": 0.5, "IoU/sea": 0.5, "IoU/<land & co>": None})
    recorder.close()
    return folder


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.links: list[str | None] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "img":
            self.images.append(found)
        self.links += [found[name] for name in ("src", "href") if name in found]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_stands_alone_and_shows_everything(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((20, 3000, 3), dtype=np.uint8))
    text = write_report(run_folder(tmp_path), [("a <b> c", image)]).read_text(encoding="utf-8")
    page = Page(text)
    assert [image["alt"] for image in page.images] == ["Loss", "Learning rate", "IoU", "a <b> c"]
    assert all((link or "").startswith("data:image/") for link in page.links)
    assert not re.search(r"https?://", text)
    for words in (
        "m with h",
        "a test",
        "<land & co>",
        "absent",
        "1.0000",
        "90.00 %",
        "data: images & masks",
        "lr: 0.001",
    ):
        assert words in page.words, words
    assert "window" not in page.words
    assert len(text) < 400_000


@pytest.mark.parametrize("name", ["$\\frac$", "$", "a $b_$ c", "_hidden", "\\alpha {"])
def test_names_of_classes_are_shown_as_they_are(tmp_path: Path, name: str) -> None:
    """Neither as formulas, which may not be any, nor left out for their first letter."""
    figure = _drawn("IoU", {"all": [(1, 0.5)], name: [(1, 0.25)]})
    (legend,) = (axes.get_legend() for axes in figure.axes)
    assert legend is not None
    assert [text.get_text().strip() for text in legend.get_texts()] == ["all", name]
    figure.savefig(io.BytesIO(), format="png")
    matrix = write_confusion(tmp_path, np.eye(2, dtype=np.int64), ("all", name))
    matrix.savefig(io.BytesIO(), format="png")
    assert [text.get_text() for text in matrix.axes[0].get_xticklabels()] == ["all", name]


def test_names_in_letters_that_no_font_has_are_numbers_in_plots(tmp_path: Path) -> None:
    """matplotlib warns of letters that it draws as empty boxes, and a warning is an error here."""
    names = ("Gebäude", "\u0378")
    matrix = write_confusion(tmp_path, np.eye(2, dtype=np.int64), names)
    matrix.savefig(io.BytesIO(), format="png")
    assert [text.get_text() for text in matrix.axes[0].get_xticklabels()] == ["Gebäude", "class 1"]
    curves = dict(_curves([{"step": "1", "mIoU": "0.5", **{f"IoU/{name}": "0.5" for name in names}}], SCORES))
    assert list(curves) == ["IoU"]


def test_without_metrics_and_samples(tmp_path: Path) -> None:
    card = ModelCard(task="segmentation", model="m", head="h", classes=CLASSES)
    save_model(tmp_path, nn.Linear(1, 1), card)
    write_text(tmp_path / "config.yaml", "lr: 0.001\n")
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert page.images == []
    assert "Scores" not in page.words


def test_recorder_drops_what_a_killed_run_wrote_after_its_checkpoint(tmp_path: Path) -> None:
    columns = ["step", "loss", "mIoU"]
    first = Recorder(tmp_path, columns)
    for step in (1, 2, 3):
        first.add(step, {"loss": 1.0 / step})
    first.close()
    with (tmp_path / "metrics.csv").open("a", encoding="utf-8") as file:
        file.write("4,0.")  # cut off by the kill
    second = Recorder(tmp_path, columns, after_step=2)
    second.add(3, {"loss": 0.25})
    second.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [("1", "1"), ("2", "0.5"), ("3", "0.25")]


def test_the_last_evaluation_is_there_once(tmp_path: Path) -> None:
    run_folder(tmp_path)
    for value in (0.7, 0.8):
        with closing(Recorder(tmp_path, list(read_metrics(tmp_path)[0]), after_step=2)) as recorder:
            recorder.add_last(2, {"mIoU": value})
    assert [row["mIoU"] for row in read_metrics(tmp_path) if row["step"] == "2"] == ["", "0.8"]
