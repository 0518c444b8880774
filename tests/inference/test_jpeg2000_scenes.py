"""JPEG 2000 and cloud-optimised GeoTIFF as scenes: the masks of the same GeoTIFF, and windows for training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import command
from geotiffs import write_geotiff

from cyclemlp.data import scenes, windows
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.georeference import georeference
from cyclemlp.data.ground_resolution import ground_resolution
from cyclemlp.data.held_out import HoldOut
from cyclemlp.data.masks import MaskDataset
from cyclemlp.data.problems import DataRequest
from cyclemlp.errors import DataError
from cyclemlp.inference.predict_files import predict_files
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model
from cyclemlp.tasks.options import PredictionOptions

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")

LOSSLESS: dict[str, Any] = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": True}
SIZE = (150, 170)


def noise(bands: int = 3, dtype: str = "uint8", high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, (*SIZE, bands)).astype(dtype)


def predictor(**more: object) -> Predictor:
    torch.manual_seed(0)
    card = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", ("a", "b"), head_width=8, window=64, overlap=16)
    card = replace(card, **more)  # type: ignore[arg-type]
    return Predictor.of_model(build_model(card).eval(), card, device="cpu")


def mask_of(entry: Any) -> tuple[np.ndarray, object, object]:
    with rasterio.open(entry["mask"]) as mask:
        return mask.read(1), mask.crs, mask.transform


@pytest.mark.parametrize("kind", ["jp2", "j2k", "cog"])
def test_the_mask_is_that_of_the_same_geotiff(kind: str, tmp_path: Path) -> None:
    """Both are given as .tif results with the place of the scene. A bare codestream (.j2k) has none: it is an image."""
    plain = write_geotiff(tmp_path / "plain.tif", noise())
    if kind == "cog":
        other = write_geotiff(tmp_path / "other.tif", noise(), driver="COG")
    else:
        other = write_geotiff(tmp_path / f"other.{kind}", noise(), **LOSSLESS)
    options = PredictionOptions(probabilities=True)
    found, expected = predict_files(predictor(), [other, plain], tmp_path / "out", options).images
    if kind == "j2k" and georeference(other) is None:
        assert found["mask"].endswith("other_mask.png")
        return
    assert Path(found["mask"]).name == "other_mask.tif"
    (mask, crs, transform), (same, its_crs, its_transform) = mask_of(found), mask_of(expected)
    assert np.array_equal(mask, same)
    with rasterio.open(found["probabilities"]) as some, rasterio.open(expected["probabilities"]) as others:
        assert np.array_equal(some.read(), others.read())
        assert len(np.unique(some.read())) > 5
    assert (crs, transform) == (its_crs, its_transform)
    assert found["areas_m2"] == expected["areas_m2"]
    assert found["ground_resolution_m"] == pytest.approx(expected["ground_resolution_m"])


def test_bands_and_values_follow_the_card(tmp_path: Path) -> None:
    values = noise(4, "uint16", 4096)
    scene = write_geotiff(tmp_path / "scene.jp2", values, **LOSSLESS)
    rule = {"in_chans": 2, "values": "fixed", "bands": (4, 1), "file_bands": 4, "value_range": (0.0, 4095.0)}
    real = predictor(**rule, mean=(0.5, 0.5), std=(0.2, 0.2))
    (found,) = predict_files(real, [scene], tmp_path / "out", PredictionOptions()).images
    np.save(tmp_path / "array.npy", values)
    (whole,) = predict_files(real, [tmp_path / "array.npy"], tmp_path / "whole", PredictionOptions()).images
    assert found["shares"] == whole["shares"]
    other = write_geotiff(tmp_path / "other.jp2", noise(2, "uint16", 4096), **LOSSLESS)
    with pytest.raises(DataError, match="has 2 bands, but the model was trained on images of 4"):
        predict_files(real, [other], tmp_path / "refused", PredictionOptions()).raise_failures()


def test_a_large_file_of_no_place_is_predicted_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limit of whole images lowered, as for TIFF."""
    path = write_geotiff(tmp_path / "large.jp2", noise(), crs=None, **LOSSLESS)
    with rasterio.open(path) as source:
        placed = not source.transform.is_identity
    monkeypatch.setattr(scenes, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    assert scenes.is_scene(path)
    (entry,) = predict_files(predictor(), [path], tmp_path / "out", PredictionOptions()).images
    assert mask_of(entry)[0].shape == SIZE
    assert placed or "areas_m2" not in entry


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "scene.jp2", noise(), **LOSSLESS)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(DataError, match=r"scene\.jp2"):
        predict_files(predictor(), [path], tmp_path / "out", PredictionOptions()).raise_failures()


def data_set(root: Path) -> Path:
    write_geotiff(root / "images/a.jp2", noise(), **LOSSLESS)
    write_geotiff(root / "masks/a.tif", (np.indices(SIZE).sum(axis=0) // 20 % 2).astype(np.uint8))
    return root


def test_training_reads_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = DataRequest(hold_out=HoldOut(0.2))
    split = find_dataset(data_set(tmp_path), MaskDataset, request).splits["train"]
    assert split.part is not None  # blocks of the ground: its place is known
    pixels, target = split.read(0)
    monkeypatch.setattr(windows, "WINDOWED_PIXELS", 10_000)
    assert split.size_in_windows(0) == SIZE
    window = slice(31, 120), slice(40, 161)
    part, part_target = split.read(0, window)
    assert np.array_equal(part, pixels[window])
    assert np.array_equal(part_target, target[window])
    assert np.array_equal(split.window_target(0, window), target[window])


def test_its_place_is_that_of_the_same_geotiff(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    found, expected = georeference(root / "images/a.jp2"), georeference(root / "masks/a.tif")
    assert found is not None
    assert expected is not None
    assert np.allclose(found.matrix, expected.matrix)
    assert (found.epsg, found.size, found.degrees) == (expected.epsg, expected.size, expected.degrees)
    assert ground_resolution(root / "images/a.jp2") == pytest.approx(ground_resolution(root / "masks/a.tif"))


def test_a_mask_of_another_place_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = data_set(tmp_path / "d")
    write_geotiff(root / "masks/a.tif", np.eye(*SIZE, dtype=np.uint8), origin=(500_500.0, 5_400_000.0))
    assert command("data", root, "--val-share", 0.2) == 2
    assert "pixels from its image a.jp2" in capsys.readouterr().out
