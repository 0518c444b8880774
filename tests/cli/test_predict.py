import errno
import json
from functools import partial
from pathlib import Path

import command_line
import numpy as np
import pytest
import torch
from PIL import Image
from predictions import segmented

from cyclemlp.data.images import image_size, read_image
from cyclemlp.data.stored_masks import read_mask
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.inference.inputs import find_inputs, plan
from cyclemlp.inference.journal import JOURNAL_NAME
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model, save_model

CLASSES = ("ocean", "land", "lake")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    card = ModelCard(task="segmentation", model="cyclemlp_nano", head="semantic-fpn", classes=CLASSES)
    save_model(folder, build_model(card), card)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.jpg"):
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    return folder


command = partial(command_line.command, "predict")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which it refuses its input."""
    return command_line.refused(capsys, "predict", *arguments)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_folder_gives_a_mask_and_an_overlay_each(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "out"
    assert command(run, photos, "--out", out, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["task"], report["run"], report["failed"]) == ("segmentation", str(run), [])
    assert [Path(entry["image"]).name for entry in report["images"]] == ["a.png", "b.png", "c.jpg"]
    assert names(out) == {f"{stem}_{kind}.png" for stem in "abc" for kind in ("mask", "overlay", "legend")}
    entry = report["images"][0]
    expected = segmented(Predictor.load(run).predict(photos / "a.png"))
    assert np.array_equal(read_mask(Path(entry["mask"])), expected.mask)
    assert np.array_equal(read_image(Path(entry["overlay"])), np.array(expected.draw(legend=False)))
    assert np.array_equal(read_image(Path(entry["legend"])), np.array(expected.legend()))
    assert entry["shares"] == expected.shares
    assert entry["size"] == {"height": 40, "width": 50}


def test_the_legend_stands_where_it_is_wanted(run: Path, photos: Path, tmp_path: Path) -> None:
    expected = segmented(Predictor.load(run).predict(photos / "a.png"))
    for place, legend in (("inside", True), ("none", False)):
        out = tmp_path / place
        assert command(run, photos / "a.png", "--out", out, "--legend", place, "--tint-background") == 0
        assert names(out) == {"a_mask.png", "a_overlay.png"}
        assert np.array_equal(read_image(out / "a_overlay.png"), np.array(expected.draw(legend=legend)))


def test_text_has_a_line_per_image(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run, photos / "a.png", photos / "c.jpg", "--out", tmp_path / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{photos / 'a.png'}: ")
    assert lines[0].endswith(f" % -> {tmp_path / 'out' / 'a_overlay.png'}")


def test_rotated_photograph_gives_results_as_shown(run: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 64), "green").save(tmp_path / "turned.jpg", exif=exif)
    assert command(run, tmp_path / "turned.jpg", "--out", tmp_path / "out") == 0
    assert image_size(tmp_path / "out" / "turned_mask.png") == (40, 64)


def test_damaged_images_are_reported_after_the_others(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:500])
    out = tmp_path / "out"
    assert command(run, photos, "--out", out, "--json") == 3
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert len(report["images"]) == 2
    assert [Path(entry["image"]).name for entry in report["failed"]] == ["b.png"]
    assert "1 of 3 images failed, the others are written: " in captured.err
    assert "b.png is damaged" in captured.err
    assert captured.err.count("\n") == 1
    assert names(out) == {f"{stem}_{kind}.png" for stem in "ac" for kind in ("mask", "overlay", "legend")} | {
        JOURNAL_NAME
    }


def test_many_failures_are_counted(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(5):
        (tmp_path / f"{i}.jpg").touch()
    message = refused(capsys, run, tmp_path, "--out", tmp_path / "out")
    assert "all 5 images failed: " in message
    assert "; and 2 more" in message
    assert not (tmp_path / "out").exists()


def test_single_damaged_image_is_the_whole_message(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").touch()
    message = refused(capsys, run, tmp_path / "a.jpg", "--out", tmp_path / "out")
    assert message.startswith(f"cyclemlp: {tmp_path / 'a.jpg'} is empty")


def test_folder_without_images(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").touch()
    message = refused(capsys, run, tmp_path, "--out", tmp_path / "out")
    assert "has no images or videos directly in it: looked for .avi, .bmp, " in message


def test_missing_image(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, run, photos / "a.png", photos / "z.png", "--out", tmp_path / "out")
    assert "z.png does not exist: give an image, a video, a folder of them, or a pattern" in message
    assert not (tmp_path / "out").exists()


def test_full_disk_is_one_line_and_leaves_nothing_half_written(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in refused(capsys, run, photos, "--out", tmp_path / "out")
    assert names(tmp_path / "out") == set()


def test_folder_that_is_no_run(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a run folder" in refused(capsys, photos, photos, "--out", tmp_path / "out")


def test_no_images_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "INPUTS" in refused(capsys, run, "--out", tmp_path / "out")


def test_pattern_that_the_shell_left_alone(photos: Path) -> None:
    assert [path.name for path in find_inputs([photos / "*.png"])] == ["a.png", "b.png"]


def test_pattern_that_fits_nothing(photos: Path) -> None:
    with pytest.raises(DataError, match=r"\*.webp fits no image or video: correct the pattern"):
        find_inputs([photos / "*.webp"])


def test_file_whose_name_looks_like_a_pattern(photos: Path) -> None:
    (photos / "a.png").rename(photos / "a[1].png")
    assert list(find_inputs([photos / "a[1].png"])) == [photos / "a[1].png"]


def test_image_given_twice_is_taken_once(photos: Path) -> None:
    again = photos / ".." / photos.name / "a.png"
    assert list(find_inputs([photos / "a.png", photos, again])) == [photos / n for n in ("a.png", "b.png", "c.jpg")]


def test_images_of_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    images = [tmp_path / name for name in ("x/a.png", "y/a.png", "y/A.jpg", "z/a-2.png")]
    jobs = plan(images, tmp_path / "out", {"mask": "_mask.png"}, {})
    stems = [job.files["mask"].name.removesuffix("_mask.png") for job in jobs]
    assert stems == ["a", "a-3", "A-4", "a-2"]


def test_input_is_never_replaced(tmp_path: Path) -> None:
    images = [tmp_path / "a.png", tmp_path / "a_mask.png"]
    with pytest.raises(ConfigError, match=r"a_mask.png would replace an input; choose another folder"):
        plan(images, tmp_path, {"mask": "_mask.png"}, {})


def test_out_that_is_a_file(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").touch()
    assert "out is a file: give a folder" in refused(capsys, run, photos, "--out", tmp_path / "out")


def test_option_of_another_task(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, run, photos, "--out", tmp_path / "out", "--no-pictures")
    assert "--no-pictures is not for segmentation models: leave it out" in message


def test_several_scales_and_flips(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run, photos / "a.png", "--out", tmp_path / "out", "--scales", "1", "1.5", "--flip", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["images"]
    expected = segmented(Predictor.load(run).with_views((1.0, 1.5), flip=True).predict(photos / "a.png"))
    assert np.array_equal(read_mask(Path(entry["mask"])), expected.mask)
