"""The runtime of a file follows from its suffix; adding one is one registration."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from predictions import segmented

from cyclemlp.errors import CheckpointError, ConfigError, MissingExtraError
from cyclemlp.heads.network import FloatArray, Network, SizeRule
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.runtimes import registry
from cyclemlp.inference.runtimes.registry import Runtime, load_network, register
from cyclemlp.tasks.card import ModelCard

CARD = ModelCard("segmentation", "toy", "toy", ("red", "green", "blue"), mean=(0.0,) * 3, std=(1.0,) * 3)


class BrightestChannel:
    """Returns the channels as logits."""

    size_rule = SizeRule(1)

    def __call__(self, images: FloatArray) -> tuple[FloatArray, ...]:
        return (images,)


def load_toy(path: Path, device: str, threads: int) -> tuple[Network, ModelCard]:
    assert device in ("auto", "cpu")
    if path.read_text() == "library":
        import a_library_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401
    return BrightestChannel(), CARD


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    known = dict(registry._by_suffix())
    register(Runtime((".toy",), load_toy, package="toylib", extra="toys"))
    yield
    registry._by_suffix().clear()
    registry._by_suffix().update(known)


def test_a_registered_runtime_predicts(tmp_path: Path) -> None:
    file = tmp_path / "model.TOY"
    file.write_text("")
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert np.array_equal(segmented(Predictor.load(file).predict(image)).mask, image.argmax(2))


def test_every_module_of_the_package_is_found() -> None:
    for name in ("m.onnx", "m.xml", "m.pt2", "m.PT2", "m.toy"):
        with pytest.raises(CheckpointError, match="does not exist: give a file written by `cyclemlp export`"):
            load_network(Path(name), "cpu")
    for name in ("run", "run.v1", "run/model.safetensors"):
        with pytest.raises(CheckpointError, match="does not exist: give a folder written by `cyclemlp train`"):
            load_network(Path(name), "cpu")


def test_a_folder_is_a_run_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "run.toy").mkdir()
    with pytest.raises(CheckpointError, match=r"run.toy is not a run folder"):
        load_network(tmp_path / "run.toy", "cpu")


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"m.toy does not exist: give a file written by `cyclemlp export`"):
        load_network(tmp_path / "m.toy", "cpu")
    (tmp_path / "m.toy").write_text("library")
    with pytest.raises(ConfigError, match=r"device 'cuda': .toy files run on cpu here"):
        load_network(tmp_path / "m.toy", "cuda")
    with pytest.raises(MissingExtraError, match=r"this needs toylib, .*cyclemlp\[toys\]"):
        load_network(tmp_path / "m.toy", "cpu")
