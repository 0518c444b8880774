"""--exact: the mask of a large image is that of the image in one piece, with bounded memory, or a line says why not."""

import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import command, refused
from mask_folders import write_mask_folder

from cyclemlp import api
from cyclemlp.errors import ConfigError, DataError
from cyclemlp.heads.streamed import maps
from cyclemlp.inference import exact, network_image
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model, save_model
from cyclemlp.tasks.segmentation.predict import SegmentationResult

pytestmark = pytest.mark.usefixtures("one_thread")

CARD = ModelCard("segmentation", "cyclemlp_nano", "upernet", ("background", "leaf", "stem"), head_width=16, window=64)
TOLERANCE = 1e-4
"""Of probabilities; as stated in docs/scenes.md."""


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of more than 100 pixels are large, and windows small."""
    monkeypatch.setattr(maps, "TILE_VALUES", 2**12)
    monkeypatch.setattr(network_image, "EXACT_ROWS", 48)
    monkeypatch.setattr(network_image, "MAX_WHOLE_PIXELS", 100)


def predictor_of(card: ModelCard) -> Predictor:
    torch.manual_seed(0)
    model = build_model(card)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return Predictor.of_model(model, card, device="cpu")


def seen(predictor: Predictor, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mask and probabilities."""
    result = predictor.predict(pixels, probabilities=True)
    assert isinstance(result, SegmentationResult)
    assert result.probabilities is not None
    return result.mask, result.probabilities


def image(height: int = 150, width: int = 170) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


def in_one_piece(predictor: Predictor, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr(network_image, "MAX_WHOLE_PIXELS", sys.maxsize)
        return seen(predictor.described_as(replace(predictor.card, window=None)), pixels)[1]


@pytest.mark.parametrize("scale", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("size", [(150, 170), (20, 130)])
def test_equal_to_the_image_in_one_piece_at_any_scale(
    scale: float, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, pixels = predictor_of(replace(CARD, input_scale=scale)), image(*size)
    whole = in_one_piece(predictor, pixels, monkeypatch)
    mask, found = seen(predictor.with_exact(), pixels)
    _, cut = seen(predictor, pixels)
    assert np.abs(found - whole).max() < TOLERANCE
    assert np.abs(cut - whole).max() > 100 * TOLERANCE
    sure = np.diff(np.sort(whole, axis=0)[-2:], axis=0)[0] > 2 * TOLERANCE
    assert np.array_equal(mask[sure], whole.argmax(0)[sure])


def test_equal_with_several_views(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = predictor_of(CARD).with_views((0.75, 1.0), flip=True)
    whole = in_one_piece(predictor, image(), monkeypatch)
    _, found = seen(predictor.with_exact(), image())
    assert np.abs(found - whole).max() < TOLERANCE


def test_nothing_is_left_in_the_folder_of_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while it runs: so nothing is left after a kill either."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    predictor = predictor_of(CARD)
    pixels = np.ascontiguousarray(image().transpose(2, 0, 1))[None]
    strips = exact.exact_strips(predictor.network, predictor.card, pixels, 1.0, 48)
    next(strips)
    if os.name == "posix":  # elsewhere they have names, and go with the process
        assert not list(tmp_path.iterdir())
    strips.close()  # type: ignore[attr-defined]


def test_too_little_space_for_temporary_files_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)
    with pytest.raises(ConfigError, match=r"--exact needs 0\.\d GB of temporary files.*0\.0 GB free: set TMPDIR"):
        predictor_of(CARD).with_exact().predict(image())


def test_output_that_is_not_finite_is_refused() -> None:
    predictor = predictor_of(CARD)
    with torch.no_grad():
        predictor.network.module.head.classifier.bias.fill_(torch.nan)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="not finite"):
        predictor.with_exact().predict(image())


def test_other_networks_are_refused_in_a_line() -> None:
    with pytest.raises(
        ConfigError, match=r"--exact does not know FeatureListNet: it is for run folders of cyclemlp_\*"
    ):
        predictor_of(replace(CARD, model="resnet18")).with_exact()
    detector = ModelCard("detection", "cyclemlp_nano", "retinanet", ("cell",), head_width=16)
    with pytest.raises(ConfigError, match="--exact is not for detection models"):
        Predictor.of_model(build_model(detector), detector, device="cpu").with_exact()


def test_the_command_predicts_scenes_exactly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    torch.manual_seed(0)
    save_model(tmp_path / "run", build_model(CARD), CARD)
    scene = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "height": 150, "width": 170, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    profile["transform"] = rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)
    with rasterio.open(scene, "w", **profile) as target:
        target.write(image().transpose(2, 0, 1))
    assert command("predict", tmp_path / "run", scene, "--out", tmp_path / "out", "--exact") == 0
    expected, _ = seen(Predictor.load(tmp_path / "run").with_exact(), image())
    with rasterio.open(tmp_path / "out" / "scene_mask.tif") as mask:
        assert np.array_equal(mask.read(1), expected)
    capsys.readouterr()
    line = refused(capsys, "predict", tmp_path / "run", scene, "--out", tmp_path / "other", "--exact", "--window", 64)
    assert "--exact is for images in one piece: leave out --window and --overlap" in line


def test_evaluation_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = replace(CARD, classes=("red", "green", "blue"), head="semantic-fpn")
    torch.manual_seed(0)
    save_model(tmp_path / "run", build_model(card), card)
    data = write_mask_folder(tmp_path / "data", train=1, val=1, edge=150)
    found = api.evaluate(tmp_path / "run", data=data, exact=True)["metrics"]
    cut = api.evaluate(tmp_path / "run", data=data)["metrics"]
    monkeypatch.setattr(network_image, "MAX_WHOLE_PIXELS", sys.maxsize)
    whole = api.evaluate(tmp_path / "run", data=data, window=192, overlap=0)["metrics"]
    assert found["pixel_accuracy"] == pytest.approx(whole["pixel_accuracy"], abs=1e-4)
    assert cut["pixel_accuracy"] != pytest.approx(whole["pixel_accuracy"], abs=1e-3)
