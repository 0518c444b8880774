"""Many files: what is done stays done, whatever happens to the others or to the command."""

import csv
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.failing_disk import FailingDisk, Fault
from cyclemlp import api
from cyclemlp.errors import ConfigError, DataError, PartlyFailedError
from cyclemlp.inference.journal import JOURNAL_NAME, Journal
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import build_model, classifier_card, save_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    card = classifier_card("cyclemlp_nano", 32, 3)
    save_model(folder, build_model(card), card)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    numbers = np.random.default_rng(0)
    for name in "abcd":
        Image.fromarray(numbers.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def predicted_by(
    monkeypatch: pytest.MonkeyPatch, stop_at: str | None = None, error: BaseException | None = None
) -> list[str]:
    """The names of the images that go through the network; at `stop_at` the error is raised."""
    seen: list[str] = []
    usual = Predictor.predict

    def predict(self: Predictor, image: Path, **options: bool) -> object:
        if Path(image).stem == stop_at and error is not None:
            raise error
        seen.append(Path(image).stem)
        return usual(self, image, **options)

    monkeypatch.setattr(Predictor, "predict", predict)
    return seen


def table(out: Path) -> list[list[str]]:
    with (out / "predictions.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_command_goes_on(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    api.predict(run, images, out=whole, device="cpu")
    with monkeypatch.context() as patch:
        assert predicted_by(patch, "c", error) == []
        with pytest.raises(type(error)):
            api.predict(run, images, out=out, device="cpu")
    with (out / JOURNAL_NAME).open("a", encoding="utf-8") as journal:
        journal.write('{"source": "half a li')  # killed within a line
    (out / "b_label.png").unlink()
    seen = predicted_by(monkeypatch)
    done = api.predict(run, images, out=out, device="cpu", resume=True)
    assert seen == ["b", "c", "d"]
    assert [Path(entry["image"]).stem for entry in done.images] == list("abcd")
    assert table(out) == table(whole)
    assert not (out / JOURNAL_NAME).exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the disk that fails finds the names in /proc")
@pytest.mark.parametrize("fault", ["full", "broken"])
def test_a_disk_that_fails_leaves_the_earlier_journal(tmp_path: Path, fault: Fault) -> None:
    first = Journal(tmp_path, {"a": 1}, resume=False)
    for name in ("a.png", "b.png"):
        first.add(name, {"image": name})
    first.close(complete=False)
    met = ["-"]
    while met[-1]:
        disk = FailingDisk(tmp_path, fault, len(met))
        again = Journal(tmp_path, {"a": 1}, resume=True)
        assert list(again.entries)[:2] == ["a.png", "b.png"]
        with disk.in_use(), suppress(OSError):
            again.add("c.png", {"image": "c.png"})
        with suppress(OSError):
            again.close(complete=False)
        met.append(disk.met)
    assert {each.partition(" ")[0] for each in met[1:-1]} == {"open", "write", "fsync", "rename"}
    assert list(Journal(tmp_path, {"a": 1}, resume=True).entries) == ["a.png", "b.png", "c.png"]


def test_an_image_that_has_changed_is_predicted_again(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        predicted_by(patch, "c", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            api.predict(run, images, out=tmp_path / "out", device="cpu")
    Image.new("RGB", (50, 40), "red").save(images / "a.png")
    seen = predicted_by(monkeypatch)
    api.predict(run, images, out=tmp_path / "out", device="cpu", resume=True)
    assert seen == ["a", "c", "d"]


def test_what_a_killed_command_left_half_written_is_removed(run: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    left_over, others = out / ".a_label.part-ab12cd_3.png", [out / ".vscode-settings.json", out / ".part-time"]
    for path in (left_over, *others):
        path.write_bytes(b"half")
    api.predict(run, images / "a.png", out=out, device="cpu")
    assert not left_over.exists()
    assert all(path.exists() for path in others)


def test_other_options_are_no_continuation(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        predicted_by(patch, "c", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            api.predict(run, images, out=tmp_path / "out", device="cpu")
    with pytest.raises(ConfigError, match="was begun with another network or other options"):
        api.predict(run, images, out=tmp_path / "out", device="cpu", resume=True, no_pictures=True)
    seen = predicted_by(monkeypatch)
    api.predict(run, images, out=tmp_path / "out", device="cpu", no_pictures=True)  # from the beginning
    assert seen == list("abcd")


def test_bad_files_are_listed_and_tried_again(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, good = tmp_path / "out", (images / "b.png").read_bytes()
    (images / "b.png").write_bytes(good[:60])
    long = images / ("l" * 250 + ".png")  # no room for _label in the name of its drawing
    long.write_bytes(good)
    with monkeypatch.context() as patch:
        predicted_by(patch, "c", MemoryError())
        done = api.predict(run, images, out=out, device="cpu")
    assert [Path(entry["image"]).stem for entry in done.images] == ["a", "d"]
    assert [Path(entry["image"]).name for entry in done.failed] == ["b.png", "c.png", long.name]
    assert all("\n" not in entry["error"] for entry in done.failed)
    with pytest.raises(PartlyFailedError) as caught:
        done.raise_failures()
    assert caught.value.exit_status == 3
    assert len(table(out)) == 3
    (images / "b.png").write_bytes(good)
    seen = predicted_by(monkeypatch)
    done = api.predict(run, images, out=out, device="cpu", resume=True)
    assert seen == ["b", "c", long.stem]
    assert [Path(entry["image"]).stem for entry in done.images] == list("abcd")


def test_nothing_but_bad_files_is_an_error_of_the_input(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        api.predict(run, tmp_path / "a.png", out=tmp_path / "out", device="cpu")
    assert caught.value.exit_status == 2


def test_names_that_are_no_utf_8(run: Path, images: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (images / "a.png").rename(images / name)
    api.predict(run, images, out=tmp_path / "out", device="cpu")
    names = [Path(row[0]).name for row in table(tmp_path / "out")[1:]]
    assert names == ["b.png", "c.png", name, "d.png"]
    entries = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [Path(entry["image"]).name for entry in entries] == names
