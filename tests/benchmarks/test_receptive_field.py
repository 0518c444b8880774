import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.__main__ import main
from benchmarks.receptive_field import area_of_energy, energy


class OneConvolution(nn.Module):
    """Sees 3x3 pixels, evenly; a LayerNorm's outputs add up to nothing, so a plain sum would have no gradient."""

    num_features = 4

    def forward_features(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        weight = torch.randn(4, 3, 1, 1).expand(-1, -1, 3, 3)
        y = torch.conv2d(x, weight, padding=1).permute(0, 2, 3, 1)
        return torch.layer_norm(y, (4,))


def test_a_convolution_sees_its_kernel() -> None:
    heat = energy(OneConvolution(), torch.rand(2, 3, 9, 9))
    wanted = np.zeros((9, 9))
    wanted[3:6, 3:6] = 1 / 9
    np.testing.assert_allclose(heat, wanted, atol=1e-6)


def test_area_by_hand() -> None:
    heat = np.array([[0.5, 0.3], [0.15, 0.05]])
    assert area_of_energy(heat, 0.5) == 0.25
    assert area_of_energy(heat, 0.6) == 0.5
    assert area_of_energy(heat, 0.95) == 0.75
    assert area_of_energy(np.full((10, 10), 0.01), 0.95) == 0.95


def test_the_command_draws_and_records(tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "field.json"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(folder / "a.png")
    with pytest.raises(SystemExit) as stopped:
        main(["receptive-field", "cyclemlp_nano", "--data", str(folder), "--size", "64", "--out", str(out)])
    assert not stopped.value.code
    (model,) = json.loads(out.read_text())["models"]
    assert model["random_weights"] is True
    assert 0 < model["area_of_50%_energy"] < model["area_of_95%_energy"] <= 1
    with Image.open(out.with_suffix(".png")) as figure:
        assert figure.width > 300


def test_a_folder_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["receptive-field", "cyclemlp_nano", "--data", str(tmp_path)])
    assert stopped.value.code == 2
    assert "has no images: give a folder that has some directly in it" in capsys.readouterr().err
