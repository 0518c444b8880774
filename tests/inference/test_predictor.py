from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from predictions import segmented
from torch import Tensor, nn

import cyclemlp
from cyclemlp.errors import CheckpointError, ConfigError, DataError
from cyclemlp.heads.detection_options import DetectionHead
from cyclemlp.heads.network import FloatArray, SizeRule
from cyclemlp.inference import network_image
from cyclemlp.inference.predictor import Predictor
from cyclemlp.tasks.card import ModelCard, build_model, save_model

CARD = ModelCard(task="segmentation", model="cyclemlp_nano", head="semantic-fpn", classes=("red", "green", "blue"))


class BrightestChannel(nn.Module):
    """Says the channel that is brightest, from normalised values; undoes the normalisation first."""

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (CARD.mean, CARD.std))
        values = images * std + mean
        assert values.min() > -1e-4
        assert values.max() < 1 + 1e-4
        return values


@pytest.fixture
def predictor() -> Predictor:
    return Predictor.of_model(BrightestChannel(), CARD, device="cpu")


def stripes(height: int = 40, width: int = 60) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Red above green, blue on the right third."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[: height // 2, :, 0] = image[height // 2 :, :, 1] = 255
    image[:, width * 2 // 3 :] = (0, 0, 255)
    return image


def test_an_array_an_image_and_a_file_give_the_same(predictor: Predictor, tmp_path: Path) -> None:
    image = stripes()
    Image.fromarray(image).save(tmp_path / "a.png")
    for given in (image, Image.fromarray(image), tmp_path / "a.png", str(tmp_path / "a.png")):
        result = segmented(predictor.predict(given))
        assert np.array_equal(result.mask, image.argmax(2))
        assert np.array_equal(result.image, image)
    assert result.classes == CARD.classes


def test_several_images_give_a_list_in_order(predictor: Predictor) -> None:
    results = [segmented(each) for each in predictor.predict([stripes(40, 60), stripes(33, 90)])]
    assert [result.mask.shape for result in results] == [(40, 60), (33, 90)]


def test_results_are_in_the_orientation_shown(predictor: Predictor, tmp_path: Path) -> None:
    shown = stripes()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: to be shown, the stored image is turned clockwise
    Image.fromarray(np.rot90(shown)).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        results = predictor.predict([tmp_path / "turned.png", opened])
    for result in map(segmented, results):
        assert np.array_equal(result.mask, shown.argmax(2))
        assert result.draw(legend=False).size == (60, 40)


def test_grey_and_transparent_images(predictor: Predictor) -> None:
    grey = np.full((40, 50), 7, dtype=np.uint8)
    assert predictor.predict(grey).image.shape == (40, 50, 3)
    assert predictor.predict(Image.fromarray(grey)).image.shape == (40, 50, 3)
    clear = Image.new("RGBA", (50, 40), (0, 0, 255, 0))
    assert (predictor.predict(clear).image == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 31), (17, 2), (31, 31), (3, 500), (700, 2)])
def test_any_size_through_the_real_network(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    real = Predictor.of_model(build_model(CARD), CARD, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = segmented(real.predict(image))
    assert result.mask.shape == size
    assert sum(result.shares.values()) == pytest.approx(1)


def test_large_image_goes_through_windows(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = network_image.WindowRule(32, 64)
    monkeypatch.setattr(network_image, "MAX_WHOLE_PIXELS", 40 * 60)
    monkeypatch.setattr(network_image, "MAP_WINDOWS", rule)
    assert network_image.tiling_for(CARD, (40, 60), 1.0, rule).window is None
    assert network_image.tiling_for(CARD, (41, 60), 1.0, rule).window == 32
    assert np.array_equal(segmented(predictor.predict(stripes(90, 60))).mask, stripes(90, 60).argmax(2))


def test_probabilities_on_request(predictor: Predictor) -> None:
    """Of one view, of several, and in windows: those that the mask is the most probable class of."""
    assert segmented(predictor.predict(stripes())).probabilities is None
    soft = np.clip(stripes(), 40, 200)
    expected = np.exp(soft.transpose(2, 0, 1) / 255.0)
    expected /= expected.sum(axis=0)
    for each in (predictor, predictor.with_views(flip=True), predictor.with_windows(32, 8)):
        result = segmented(each.predict(soft, probabilities=True))
        assert result.probabilities is not None
        assert result.probabilities.dtype == np.float32
        assert np.allclose(result.probabilities, expected, atol=1e-5)
        assert np.array_equal(result.mask, result.probabilities.argmax(axis=0))


def test_detectors_have_no_probabilities_of_pixels() -> None:
    card = ModelCard(
        task="detection", model="cyclemlp_nano", head="retinanet", classes=("cell",), detection=DetectionHead()
    )
    detector = Predictor.of_model(nn.Identity(), card, device="cpu")
    with pytest.raises(ConfigError, match="probabilities are not for detection models"):
        detector.predict(stripes(), probabilities=True)


def test_saved_model_predicts_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(CARD)
    save_model(tmp_path, model, CARD)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    before = Predictor.of_model(model, CARD, device="cpu").predict(image)
    after = cyclemlp.Predictor.load(tmp_path, device="cpu").predict(image)
    assert np.array_equal(segmented(before).mask, segmented(after).mask)


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a run folder"):
        Predictor.load(tmp_path)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_unusable_device_is_named(device: str) -> None:
    with pytest.raises(ConfigError, match=rf"device '{device}' is not usable here: allowed are auto, .*cpu"):
        Predictor.of_model(BrightestChannel(), CARD, device=device)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), r"shape \(4, 4, 3\) and type float32: give an array"),
        (np.zeros((4,), dtype=np.uint8), r"shape \(4,\) and type uint8"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 5), dtype=np.uint8), "5 channels, but the model was trained on 3"),
    ],
)
def test_unusable_arrays_are_refused(
    predictor: Predictor, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        predictor.predict(image)


def test_unreadable_file_is_named(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DataError, match=r"empty.jpg is empty"):
        predictor.predict(tmp_path / "empty.jpg")


class Overflowing:
    """Its outputs are not finite."""

    size_rule = SizeRule(1)

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        outputs = np.zeros_like(images)
        outputs[0, 0, 0, 0] = self.value
        return (outputs,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_outputs_that_are_not_finite_are_refused_with_the_name_of_the_image(value: float, tmp_path: Path) -> None:
    Image.fromarray(stripes(40, 40)).save(tmp_path / "dark.png")
    with pytest.raises(DataError, match=r"dark.png: the network's output is not finite"):
        Predictor(Overflowing(value), CARD).predict(tmp_path / "dark.png")
