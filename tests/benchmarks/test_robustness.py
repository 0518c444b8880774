from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.robustness import CORRUPTIONS, corrupt, corruption_errors, error_rates, mean_corruption_error
from cyclemlp.errors import ConfigError
from cyclemlp.inference.predictor import Predictor
from cyclemlp.models.classifiers import create_classifier
from cyclemlp.tasks.card import ModelCard, build_model

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
FEW = ("fog", "contrast")  # some of the others are compiled at their first call, which takes seconds


def test_by_the_definition() -> None:
    # sums 1.0 over 2.0 and 1.5 over 1.0: CE 0.5 and 1.5, their mean 1.0 (a ratio of means would give 2.5 / 3)
    ours = {"fog": [0.1, 0.2, 0.2, 0.2, 0.3], "snow": [0.3] * 5}
    reference = {"fog": [0.4] * 5, "snow": [0.2] * 5}
    assert corruption_errors(ours, reference) == pytest.approx({"fog": 0.5, "snow": 1.5})
    assert mean_corruption_error(ours, reference) == pytest.approx(1.0)
    assert mean_corruption_error(ours, {"fog": [0.0] * 5, "snow": [0.2] * 5}) is None


def test_the_same_seed_corrupts_alike_and_leaves_numpy_as_it_was() -> None:
    pytest.importorskip("imagecorruptions")
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    first, again, other = (corrupt(PIXELS, "gaussian_noise", 3, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    assert str(before) == str(after)


def test_a_classifier_of_one_class_right_half_the_time(tmp_path: Path) -> None:
    pytest.importorskip("imagecorruptions")
    card = ModelCard("classification", "cyclemlp_nano", "linear", ("a", "b"), image_size=32, crop_pct=0.875)
    model: Any = create_classifier("cyclemlp_nano", 2, image_size=32)
    model.head.fc.bias.data[1] = 100.0  # always the second class
    path = tmp_path / "x.png"
    Image.fromarray(PIXELS).save(path)
    clean, errors = error_rates(Predictor.of_model(model, card, "cpu"), [(path, 0), (path, 1)], 0, FEW)
    assert clean == 0.5
    assert errors == {name: [0.5] * 5 for name in FEW}


def test_the_corruptions_of_the_definition() -> None:
    package = pytest.importorskip("imagecorruptions")
    assert tuple(package.get_corruption_names("common")) == CORRUPTIONS


def test_refuses_other_tasks() -> None:
    card = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", ("a", "b"))
    predictor = Predictor.of_model(build_model(card), card, "cpu")
    with pytest.raises(ConfigError, match="the model is for segmentation: robustness is measured on classifiers"):
        error_rates(predictor, [])
