from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open

from cyclemlp.cli import main
from cyclemlp.models.checkpoints import read_state_dict
from cyclemlp.models.layouts import to_authors_layout


@pytest.fixture(scope="module")
def authors_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authors") / "CycleMLP_nano.pth"
    model = timm.create_model("cyclemlp_nano", num_classes=7)
    torch.save({"model": to_authors_layout(model.state_dict())}, path)
    return path


def done(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["convert", *map(str, arguments)])
    assert not stopped.value.code


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["convert", *map(str, arguments)])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_there_and_back_to_the_bit(authors_file: Path, tmp_path: Path) -> None:
    ours, again = tmp_path / "nano.safetensors", tmp_path / "again.pth"
    done(authors_file, ours)
    with safe_open(ours, "pt") as file:
        assert file.metadata()["architecture"] == "cyclemlp_nano"
    assert timm.create_model("cyclemlp_nano", num_classes=7, checkpoint_path=ours)
    done(ours, again, "--to", "authors")
    before, after = read_state_dict(authors_file), read_state_dict(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].shape == after[key].shape for key in before)


def test_asmlp_there_and_back(tmp_path: Path) -> None:
    torch.save(timm.create_model("asmlp_tiny", in_chans=4, num_classes=2).state_dict(), tmp_path / "ours.pt")
    done(tmp_path / "ours.pt", tmp_path / "theirs.pth")
    theirs = read_state_dict(tmp_path / "theirs.pth")
    assert theirs["layers.0.blocks.1.axial_shift.conv2_1.weight"].shape == (96, 96, 1, 1)
    assert theirs["layers.2.downsample.reduction.weight"].shape == (768, 1536, 1, 1)
    done(tmp_path / "theirs.pth", tmp_path / "again.safetensors")
    again = read_state_dict(tmp_path / "again.safetensors")
    assert all(torch.equal(again[key], value) for key, value in read_state_dict(tmp_path / "ours.pt").items())


def test_activemlp_there_and_back(tmp_path: Path) -> None:
    torch.save(timm.create_model("activemlp_nano", in_chans=4, num_classes=2).state_dict(), tmp_path / "ours.pt")
    done(tmp_path / "ours.pt", tmp_path / "theirs.pth")
    theirs = read_state_dict(tmp_path / "theirs.pth")
    assert theirs["blocks.2.2.offset_layer.1.weight"].shape == (80, 160)
    assert theirs["blocks.2.3.atm.atm_w.weight"].shape == (160, 160, 1, 1)
    assert theirs["blocks.2.3.downsample.proj.weight"].shape == (256, 160, 3, 3)
    done(tmp_path / "theirs.pth", tmp_path / "again.safetensors")
    again = read_state_dict(tmp_path / "again.safetensors")
    assert all(torch.equal(again[key], value) for key, value in read_state_dict(tmp_path / "ours.pt").items())


def test_what_cannot_be_converted(authors_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    assert "no such weight file" in refused(capsys, tmp_path / "absent.pth", out)
    assert "fits no CycleMLP, AS-MLP or ActiveMLP classifier" in refused(capsys, tmp_path / "other.pth", out)
    assert "missing stages.0.blocks.2" in refused(capsys, authors_file, out, "--model", "cyclemlp_b3")
    assert "Did you mean 'cyclemlp_b3'?" in refused(capsys, authors_file, out, "--model", "cyclemlp_b33")
    assert "name it .safetensors" in refused(capsys, authors_file, out, "--to", "authors")
    assert "offsets of step size (1, 5)" in refused(
        capsys, authors_file, out, "--model", "cyclemlp_nano", "--stepsize", 5
    )
    assert not out.exists()


def test_reconstructed_models_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = tmp_path / "tiny.pth"
    with torch.device("meta"):
        shapes = timm.create_model("cyclemlp_tiny", num_classes=0).state_dict()
    weights = {key: torch.zeros(value.shape) for key, value in shapes.items()}
    torch.save(weights, tiny)
    assert "only CycleMLP B1-B5 and nano and AS-MLP and ActiveMLP have a layout" in refused(
        capsys, tiny, tmp_path / "out.pth"
    )
    torch.save({key: value for key, value in weights.items() if "stem.norm" not in key}, tiny)
    line = refused(capsys, tiny, tmp_path / "out.safetensors", "--model", "cyclemlp_tiny")
    assert "missing stem.norm.bias, stem.norm.weight. This network is a reconstruction" in line
