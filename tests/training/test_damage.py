"""A damaged checkpoint or network is found when it is loaded; a run folder has one process at a time."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from training.conftest import a_few_steps, use_small_networks
from training_runs import train_segmentation

from cyclemlp import files
from cyclemlp.errors import CheckpointError, ConfigError
from cyclemlp.files import sha256_of, verified
from cyclemlp.tasks import card as card_module
from cyclemlp.tasks.card import ModelCard, build_model, classifier_card, load_model, save_card, save_model
from cyclemlp.tasks.options import Length, Recording
from cyclemlp.tasks.replacing import LOCK
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.training.checkpoints import read_checkpoint
from cyclemlp.training.run_folder import locked

Configured = Callable[..., SegmentationConfig]
HELD = """
import os, sys, time
from pathlib import Path
from cyclemlp.training.run_folder import locked
with locked(Path(sys.argv[1])):
    if os.name == "posix" and not os.fork():  # like a process that reads images: it ends seconds after the other
        time.sleep(2)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)


def is_refused(run: Path) -> bool:
    try:
        read_checkpoint(run)
    except CheckpointError as error:
        return "\n" not in str(error)
    return False


@pytest.fixture(scope="module")
def whole_run(mask_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint after each of its four steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        use_small_networks(patch)
        recording = Recording(evaluations=1, checkpoint_every=1)
        return train_segmentation(a_few_steps(mask_folder, out, 4, recording=recording))


@pytest.fixture
def run(whole_run: Path, tmp_path: Path, small_networks: None) -> Path:
    """A copy of it to damage, where `configured` has its run."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


def test_every_checkpoint_has_its_digest(run: Path) -> None:
    folder = run / "checkpoints"
    lines = [line.split() for line in (folder / "sha256.txt").read_text().splitlines()]
    assert {name: digest for digest, name in lines} == {path.name: sha256_of(path) for path in folder.glob("*.ckpt")}
    assert {name for _, name in lines} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    steps = [torch.load(folder / f"{name}.ckpt", weights_only=True)["step"] for name in ("last", "previous")]
    assert steps == [4, 3]


@pytest.mark.parametrize("spoil", ["flip", "cut", "empty", "gone"])
def test_a_damaged_checkpoint_is_left_for_the_one_before(
    run: Path, spoil: str, configured: Configured, caplog: pytest.LogCaptureFixture
) -> None:
    last = run / "checkpoints/last.ckpt"
    if spoil == "flip":
        flip(last, last.stat().st_size // 2)
    elif spoil == "gone":
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[: 1000 if spoil == "cut" else 0])
    state = read_checkpoint(run)
    assert state is not None
    assert state["step"] == 3
    if spoil != "gone":
        (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
        assert "last.ckpt is damaged" in warning
        assert "continuing from the one before it" in warning
    train_segmentation(configured(5, resume=True, recording=Recording(evaluations=1, checkpoint_every=1)))
    state = read_checkpoint(run)
    assert state is not None
    assert state["step"] == 5


def test_damage_everywhere_is_one_line_of_error(run: Path) -> None:
    """With digests every change is found; without them whatever torch does not accept."""
    folder = run / "checkpoints"
    (folder / "previous.ckpt").unlink()
    last = folder / "last.ckpt"
    whole, digests = last.read_bytes(), (folder / "sha256.txt").read_text()
    refused = 0
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        flip(last, place, place % 8)
        with pytest.raises(CheckpointError, match="is damaged: its SHA-256 is not the one"):
            read_checkpoint(run)
        (folder / "sha256.txt").unlink()
        refused += is_refused(run)
        (folder / "sha256.txt").write_text(digests)
        last.write_bytes(whole)
    assert refused
    assert read_checkpoint(run) is not None


CHANGES: dict[str, dict[str, Any]] = {
    "no optimiser": {"optimizer": None},
    "another optimiser": {"optimizer": {"state": {}, "param_groups": []}},
    "another network": {"model": {"weight": torch.zeros(2)}},
    "no numbers": {"step": "four", "loader": {"delivered": "four"}},
    "no loader": {"loader": None},
    "no evaluations": {"evaluations": {"unknown": 1}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_another_network_is_one_line(run: Path, name: str, configured: Configured) -> None:
    """Where no digest says that it is not of this run."""
    folder = run / "checkpoints"
    state = torch.load(folder / "last.ckpt", weights_only=True) | CHANGES[name]
    (folder / "sha256.txt").unlink()
    torch.save(state, folder / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt does not fit this run") as refused:
        train_segmentation(configured(5, resume=True, recording=Recording(evaluations=1, checkpoint_every=1)))
    assert "\n" not in str(refused.value)
    assert (folder / "last.ckpt").is_file()


def test_a_flipped_bit_of_the_weights_is_found(tmp_path: Path) -> None:
    card = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", ("a", "b"), head_width=8)
    torch.manual_seed(0)
    save_model(tmp_path, build_model(card), card)
    saved = json.loads((tmp_path / "model.json").read_text())
    weights = tmp_path / "model.safetensors"
    assert saved["weights_sha256"] == sha256_of(weights)
    load_model(tmp_path)
    flip(weights, -1000)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged: .* --no-verify"):
        load_model(tmp_path)
    with verified(False):
        load_model(tmp_path)
    save_card(tmp_path, card)
    load_model(tmp_path)
    del saved["weights_sha256"]  # a card of an earlier version
    (tmp_path / "model.json").write_text(json.dumps(saved))
    load_model(tmp_path)


def test_a_network_that_replaces_another_is_never_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is made longer writes its weights, then its card; a process may end between the two."""
    card = classifier_card("test_byobnet", 32, 2)
    before, after = build_model(card), build_model(card)
    save_model(tmp_path, before, card)
    usual, written = files.atomic_write, list[str]()

    @contextmanager
    def until_the_weights(path: Path) -> Iterator[Path]:
        if "model.safetensors" in written:
            raise OSError(errno.EIO, "Input/output error")
        with usual(path) as part:
            yield part
        written.append(path.name)

    with monkeypatch.context() as patch:
        patch.setattr(card_module, "atomic_write", until_the_weights)
        patch.setattr(files, "atomic_write", until_the_weights)
        with pytest.raises(OSError, match="Input/output error"):
            save_model(tmp_path, after, card)
    found, _ = load_model(tmp_path)
    assert all(torch.equal(found.state_dict()[name], value) for name, value in after.state_dict().items())
    flip(tmp_path / "model.safetensors", -1000)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_model(tmp_path)


def test_a_disk_that_fails_for_a_moment_is_no_damage(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Continuing from the checkpoint before the last one would lose steps that are there."""

    def fails(*_args: object, **_options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fails)
        with pytest.raises(OSError, match="Input/output error"):
            read_checkpoint(run)
    assert read_checkpoint(run) is not None


def test_what_a_process_left_before_there_was_a_run_is_no_run(configured: Configured, small_networks: None) -> None:
    config = configured(2, length=Length(steps=2))
    config.run_dir.mkdir(parents=True)
    left_over = config.run_dir / ".config.part-ab12cd_3.yaml"
    left_over.write_text("half")
    assert (train_segmentation(config) / "model.json").is_file()
    assert not left_over.exists()


def test_a_run_folder_has_one_process_at_a_time(run: Path, configured: Configured) -> None:
    left_over = run / "checkpoints/.last.part-ab12cd_3.ckpt"
    left_over.write_bytes(b"half")
    (run / ".keep-this").write_bytes(b"")
    other = subprocess.Popen(
        [sys.executable, "-c", HELD, str(run)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="is in use: another process trains there"):
            train_segmentation(configured(5, resume=True))
    finally:
        other.kill()
        other.wait()
        other.stdout.close()  # type: ignore[union-attr]
    with locked(run):
        assert not left_over.exists()
        assert (run / ".keep-this").exists()
        assert (run / LOCK).exists()


def test_a_run_folder_has_one_run_of_a_process_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(ConfigError, match="is in use"), locked(tmp_path):
            pass
        with pytest.raises(ConfigError, match="is in use"), locked(tmp_path):  # the attempt has not opened it
            pass
    with locked(tmp_path):
        pass


def test_a_lock_alone_is_no_run(configured: Configured, small_networks: None) -> None:
    config = configured(2, length=Length(steps=2))
    with locked(config.run_dir):
        pass
    assert (train_segmentation(config) / "model.json").is_file()
