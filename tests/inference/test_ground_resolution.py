"""Ground resolution: measured in any coordinates, kept with the model, and made equal at prediction."""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from command_line import command, refused
from geotiffs import write_geotiff
from predictions import segmented
from torch import Tensor, nn

import cyclemlp
from cyclemlp.data.ground_resolution import ground_resolution, measure_ground
from cyclemlp.errors import CheckpointError, ConfigError
from cyclemlp.inference.predict_files import predict_files
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model, read_card, save_model
from cyclemlp.tasks.options import PredictionOptions

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ("red", "green", "blue")
CARD = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", CLASSES, head_width=8, ground_resolution=(10, 10, 10))
NUMBERS = np.kron(np.arange(20).reshape(4, 5) % 3, np.ones((24, 24), np.int64))
COLOURS = (np.eye(3, dtype=np.uint8) * 255)[NUMBERS]


class BrightestChannel(nn.Module):
    """Says the band that is brightest, and notes what it sees."""

    seen: ClassVar[set[tuple[int, ...]]] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.add(tuple(images.shape[2:]))
        mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (CARD.mean, CARD.std))
        return images * std + mean


@pytest.fixture
def predictor() -> Predictor:
    BrightestChannel.seen.clear()
    return Predictor.of_model(BrightestChannel(), CARD, device="cpu")


@pytest.mark.parametrize(
    ("crs", "step", "origin", "metres"),
    [
        ("EPSG:32633", 10.0, (500_000.0, 5_400_000.0), 10 / 0.9996),  # scale on the central meridian
        ("EPSG:4326", 0.001, (15.0, 60.0), 1000 * (0.05580 * 0.11141) ** 0.5),  # km of 0.001 degrees at 60 north
        ("EPSG:3857", 10.0, (1_000_000.0, 8_399_737.9), 10 * 0.5),  # cos(60 degrees), and the ellipsoid
        ("EPSG:2263", 1.0, (1_000_000.0, 200_000.0), 0.3048),  # feet
        (None, 10.0, (0.0, 0.0), None),
        ('LOCAL_CS["here",UNIT["metre",1]]', 10.0, (0.0, 0.0), None),
    ],
)
def test_metres_in_any_coordinates(
    crs: str | None, step: float, origin: tuple[float, float], metres: float | None, tmp_path: Path
) -> None:
    path = write_geotiff(tmp_path / "image.tif", COLOURS, crs=crs, step=step, origin=origin)
    found = ground_resolution(path)
    assert found == (metres if metres is None else pytest.approx(metres, rel=4e-3))


def test_images_of_different_resolutions_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fine = write_geotiff(tmp_path / "fine.tif", COLOURS, step=5)
    coarse = write_geotiff(tmp_path / "coarse.tif", COLOURS, step=20)
    plain = tmp_path / "plain.npy"
    np.save(plain, COLOURS)
    assert measure_ground((fine, fine)) == pytest.approx((5, 5, 5), rel=1e-3)
    assert "ground resolution: 5.00" in caplog.messages[-1]
    assert measure_ground((fine, coarse, plain)) == pytest.approx((12.5, 5, 20), rel=1e-3)
    line = caplog.messages[-1]
    assert "different ground resolutions" in line
    assert str(fine) in line
    assert str(coarse) in line
    assert line.endswith("1 of 3 images do not say theirs")
    assert measure_ground((plain,)) == ()


def test_without_rasterio_a_line_names_the_extra(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_geotiff(tmp_path / "image.tif", COLOURS, step=20)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert measure_ground((image,)) == ()
    predictor.predict(image)
    assert caplog.text.count("is not read without rasterio: pip install 'cyclemlp[geo]'") == 2


@pytest.mark.parametrize("name", ["scene", "boxes"])
def test_an_image_of_another_resolution_is_resampled_for_the_network(
    name: str, predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both ways of prediction: in windows, and in memory."""
    caplog.set_level(logging.INFO)
    scene = write_geotiff(tmp_path / "scene.tif", COLOURS, step=20)
    if name == "boxes":  # as tasks do that read a GeoTIFF whole
        mask = segmented(predictor.predict(scene)).mask
    else:
        (entry,) = predict_files(predictor, [scene], tmp_path / "out", PredictionOptions()).images
        with rasterio.open(entry["mask"]) as written, rasterio.open(scene) as given:
            mask = written.read(1)
            assert (written.crs, written.transform, written.shape) == (given.crs, given.transform, given.shape)
        assert entry["ground_resolution_m"] == pytest.approx(20, rel=1e-3)
    assert BrightestChannel.seen == {(192, 240)}
    assert np.array_equal(mask, NUMBERS)
    assert "20.01 m per pixel, and the model was trained at 10 m: resampled by 2.001" in caplog.text


@pytest.mark.parametrize("step", [9.5, 10.0, 10.9])
def test_within_the_tolerance_images_stay_as_they_are(step: float, predictor: Predictor, tmp_path: Path) -> None:
    scene = write_geotiff(tmp_path / "scene.tif", COLOURS, step=step)
    predict_files(predictor, [scene], tmp_path / "out", PredictionOptions()).raise_failures()
    assert BrightestChannel.seen == {(96, 120)}


def test_the_resolution_can_be_given_or_kept(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = write_geotiff(tmp_path / "nowhere.tif", COLOURS, crs=None)
    far = write_geotiff(tmp_path / "far.tif", COLOURS, step=50)
    cases = ((nowhere, None, (96, 120)), (nowhere, "5", (48, 60)), (far, "keep", (96, 120)))
    for scene, given, size in cases:
        BrightestChannel.seen.clear()
        options = PredictionOptions(ground_resolution=given)
        predict_files(predictor, [scene], tmp_path / "out", options).raise_failures()
        assert BrightestChannel.seen == {size}
    assert caplog.text.count("does not say its ground resolution, and the model was trained at 10 m") == 1
    (failed,) = predict_files(predictor, [far], tmp_path / "out", PredictionOptions()).failed
    assert "more than 4 times apart; resample it, or give --ground-resolution keep" in failed["error"]
    for given in ("0", "-3", "ten", "nan", "1e9"):
        with pytest.raises(ConfigError, match="--ground-resolution"):
            predictor.with_ground_resolution(given)
    unknowing = predictor.described_as(replace(CARD, ground_resolution=()))
    with pytest.raises(ConfigError, match="does not know the ground resolution"):
        unknowing.with_ground_resolution("keep")
    unknowing.predict(far)


@pytest.mark.parametrize("wrong", [[10], [10, 12, 14], [0, 0, 0]])
def test_a_card_with_other_numbers_is_refused(wrong: list[float]) -> None:
    with pytest.raises(CheckpointError, match="ground_resolution"):
        ModelCard.from_dict({**CARD.to_dict(), "ground_resolution": wrong})


def test_a_classifier_has_no_such_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=32, crop_pct=1.0)
    save_model(tmp_path / "run", build_model(card), card)
    np.save(tmp_path / "image.npy", COLOURS)
    words = [tmp_path / "run", tmp_path / "image.npy", "--out", tmp_path / "out", "--ground-resolution", "5"]
    assert "--ground-resolution is not for classification" in refused(capsys, "predict", *words)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Trained for a step on two georeferenced images of 10 metres."""
    root = tmp_path_factory.mktemp("ground")
    for number, split in enumerate(("train", "val")):
        place = (500_000.0 + 5_000 * number, 5_400_000.0)
        write_geotiff(root / f"data/images/{split}/a.tif", COLOURS, origin=place)
        write_geotiff(root / f"data/masks/{split}/a.tif", NUMBERS.astype(np.uint8), origin=place)
    options = {"steps": 1, "batch_size": 1, "crop_size": 32, "workers": 0, "device": "cpu", "head_width": 8}
    return cyclemlp.train("segmentation", data=root / "data", out=root / "run", **options).folder  # type: ignore[arg-type]


def test_a_run_keeps_the_resolution(run: Path) -> None:
    assert read_card(run).ground_resolution == pytest.approx((10, 10, 10), rel=1e-3)


def test_commands_take_the_option(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_geotiff(tmp_path / "scene.tif", COLOURS, step=40.1)
    assert "more than 4 times apart" in refused(capsys, "predict", run, scene, "--out", tmp_path / "out")
    words = ["--ground-resolution", "20", "--json"]
    assert command("predict", run, scene, "--out", tmp_path / "out", *words) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["size"] == {"height": 96, "width": 120}
    assert command("eval", run, *words) == 0


def test_images_that_are_resized_to_a_size_have_no_resolution(run: Path, tmp_path: Path) -> None:
    options = {"steps": 1, "batch_size": 1, "crop_size": 32, "workers": 0, "device": "cpu", "head_width": 8}
    sized = cyclemlp.train("segmentation", data=run.parent / "data", out=tmp_path / "run", short_side=64, **options)  # type: ignore[arg-type]
    assert read_card(sized.folder).ground_resolution == ()
