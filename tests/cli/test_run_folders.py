"""Where runs lie: numbered folders, `--resume RUN` and `--overwrite`. No run is lost, and no two are mixed."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import command, refused
from mask_folders import write_mask_folder
from PIL import Image

import cyclemlp
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.replacing import check_replaceable, remove_begun
from cyclemlp.training.run_folder import locked

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ["--crop-size", "32", "--batch-size", "2", "--workers", "0", "--device", "cpu", "--log-every", "1"]
SMALL += ["--evaluations", "1", "--steps", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a finished run on it; tests copy both."""
    root = tmp_path_factory.mktemp("made")
    write_mask_folder(root / "data", train=2, val=1)
    assert command("train", "segmentation", "--data", root / "data", "--out", root / "run", *SMALL) == 0
    return root


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the run as its first of segmentation."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "run", tmp_path / "runs" / "segmentation")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def steps(run: Path) -> list[str]:
    return [line.partition(",")[0] for line in (run / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]]


def test_runs_without_a_folder_are_numbered(
    made: Path, here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shutil.copytree("runs/segmentation", "runs/segmentation-2")
    Path("runs/segmentation-4").mkdir()
    before = content(here / "runs" / "segmentation")
    assert command("train", "segmentation", "--data", made / "data", *SMALL, "--json") == 0
    assert json.loads(capsys.readouterr().out)["run"] == "runs/segmentation-3"
    assert "the run folder is runs/segmentation-3" in caplog.messages
    assert content(here / "runs" / "segmentation") == before
    options = yaml.safe_load((here / "runs" / "segmentation-3" / "config.yaml").read_text(encoding="utf-8"))
    assert options["out"] == "runs/segmentation-3"
    assert not {"resume", "overwrite"} & options.keys()
    words = refused(capsys, "train", "segmentation", "--resume")
    assert words == (
        "cyclemlp: --resume: runs has 3 runs of segmentation: name one, such as --resume runs/segmentation-3\n"
    )


def test_a_folder_in_use_is_passed_over(made: Path, here: Path) -> None:
    """Two commands at the same time get two folders, whichever is first."""
    runs = list[str]()

    def train() -> None:
        run = cyclemlp.train("segmentation", data=made / "data", crop_size=32, batch_size=2, workers=0, steps=1)
        runs.append(str(run))

    with locked(here / "runs" / "segmentation-2"):
        threads = [threading.Thread(target=train) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(runs) == ["runs/segmentation-3", "runs/segmentation-4"]


def test_a_run_is_resumed_by_its_folder(made: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Moved, from another working directory, with data and options from the run; an option that is given goes first."""
    moved = here / "elsewhere" / "mine"
    moved.parent.mkdir()
    (here / "runs" / "segmentation").rename(moved)
    assert command("train", "segmentation", "--resume", moved, "--steps", "2", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["run"], answer["data"]) == (str(moved), str(made / "data"))
    assert [step for step in steps(moved) if step][-1] == "2"
    assert not (here / "runs" / "segmentation").exists()
    assert str(cyclemlp.train("segmentation", resume=moved, steps=3)) == str(moved)
    assert steps(moved)[-1] == "3"


def test_the_only_run_is_resumed_without_its_name(here: Path) -> None:
    assert command("train", "segmentation", "--resume", "--steps", "2") == 0
    assert steps(here / "runs" / "segmentation")[-1] == "2"


def test_what_cannot_be_resumed_is_refused_in_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("runs/segmentation")
    before = content(run)
    for arguments, words in [
        (
            ["segmentation", "--resume", str(run), "--out", "other"],
            f"--resume {run} and --out other are two folders: a run stays in its own, leave --out out",
        ),
        (
            ["detection", "--resume", str(run)],
            f"{run} is a run of segmentation: cyclemlp train segmentation --resume {run}",
        ),
        (["segmentation", "--resume", "none"], "none is no run folder: it has no config.yaml"),
        (["segmentation", "--resume", str(run), "--lr", "1"], "--lr 1.0 cannot be changed within a run"),
        (["segmentation", "--resume", str(run), "--config", "x"], "--config and --resume were both given"),
        (
            ["segmentation", "--resume", str(run), "--overwrite"],
            "--overwrite replaces a run, and --resume continues one",
        ),
    ]:
        assert refused(capsys, "train", *arguments).startswith(f"cyclemlp: {words}")
    assert content(run) == before
    assert command("train", "segmentation", "--resume", str(run), "--out", run) == 0


def test_a_run_is_replaced(made: Path, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run = Path("runs/segmentation")
    (run / "confusion.csv").touch()  # of a classifier
    before = content(run)
    given = ["--data", made / "data", "--out", run, *SMALL]
    assert command("train", "segmentation", *given, "--overwrite", "--init", run, "--seed", "1") == 0
    assert f"replacing the run in {run}" in caplog.text
    after = content(run)
    assert "confusion.csv" not in after
    assert after["model.safetensors"] != before["model.safetensors"]
    assert len(json.loads(after["run.json"])["sessions"]) == 1
    assert len([name for name in after if name.startswith("tensorboard")]) == len(
        [name for name in before if name.startswith("tensorboard")]
    )


def test_the_old_run_stays_until_the_new_one_is_checked(
    made: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path("runs/segmentation")
    before = content(run)
    bad = here / "bad"
    shutil.copytree(made / "data", bad)
    (bad / "images" / "train" / "0.png").write_bytes(b"no image")
    given = ["--out", run, *SMALL, "--overwrite"]
    for options in (
        ["--data", bad],
        ["--data", made / "data", "--init", "none.pth"],
        ["--data", made / "data", "--lr", "0"],
    ):
        refused(capsys, "train", "segmentation", *given, *options)
        assert content(run) == before


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "predicted/a.png", "checkpoints/mine.ckpt", "tensorboard/a/b", ".hidden", "wandb/a", "mlflow/a"],
)
def test_other_files_are_never_deleted(name: str, made: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("runs/segmentation")
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("years of work", encoding="utf-8")
    before = content(run)
    words = refused(capsys, "train", "segmentation", "--data", made / "data", "--out", run, "--overwrite")
    named = name if name.startswith("checkpoints") else name.rpartition("/")[0] or name
    assert words == (
        f"cyclemlp: --overwrite: {run} also holds {named}, which this run did not write: move that away, or choose"
        " another --out\n"
    )
    assert content(run) == before


def test_what_is_no_run_is_never_replaced(made: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("config.yaml", "lr: 1\n"), ("metrics.csv", "step\n"), ("config.yaml", "- a\n")):
        folder = here / "mine"
        folder.mkdir()
        (folder / name).write_text(text, encoding="utf-8")
        words = refused(capsys, "train", "segmentation", "--data", made / "data", "--out", folder, "--overwrite")
        assert words == (
            f"cyclemlp: --overwrite: {folder} is not the folder of a run, so nothing in it is deleted: choose another"
            " --out\n"
        )
        assert (folder / name).read_text(encoding="utf-8") == text
        shutil.rmtree(folder)
    (here / "mine").write_text("a file", encoding="utf-8")
    refused(capsys, "train", "segmentation", "--data", made / "data", "--out", here / "mine", "--overwrite")
    words = refused(capsys, "train", "segmentation", "--data", made / "data", "--overwrite")
    assert words == "cyclemlp: --overwrite replaces a run, and needs its folder: give --out as well\n"
    words = refused(capsys, "train", "segmentation", "--data", made / "data", "--out", "runs/segmentation")
    assert words == (
        "cyclemlp: --out runs/segmentation exists and is not empty: continue it with --resume, replace it with"
        " --overwrite, or choose another\n"
    )


def test_links_are_not_followed(made: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, archive = here / "runs" / "segmentation", here / "archive"
    (run / "checkpoints").rename(archive)
    (run / "checkpoints").symlink_to(archive)
    before = content(archive)
    words = refused(capsys, "train", "segmentation", "--data", made / "data", "--out", run, "--overwrite")
    assert "also holds checkpoints, which this run did not write" in words
    assert content(archive) == before


def test_a_run_in_use_is_not_replaced(made: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("runs/segmentation")
    with locked(run):
        before = content(run)
        words = refused(capsys, "train", "segmentation", "--data", made / "data", "--out", run, *SMALL, "--overwrite")
        assert "is in use: another process trains there" in words
        assert content(run) == before


def test_all_that_a_classifier_writes_is_known(here: Path) -> None:
    for split in ("train", "val"):
        for number, name in enumerate(("a", "b")):
            (here / "classes" / split / name).mkdir(parents=True)
            pixels = np.full((40, 40, 3), 60 + 100 * number + (split == "val"), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "classes" / split / name / "0.png")
    run = cyclemlp.train("classification", data=here / "classes", workers=0, steps=1, batch_size=2, image_size=32)
    assert str(run) == "runs/classification"
    assert (run.folder / "confusion.csv").is_file()
    check_replaceable(run.folder)
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        check_replaceable(here / "classes")


@pytest.mark.parametrize("linked", [False, True])
def test_a_run_that_ends_before_its_first_checkpoint_takes_no_file_of_others_with_it(
    linked: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    target = tmp_path / "elsewhere" if linked else folder
    for name in (
        "config.yaml",
        "metrics.csv",
        "tensorboard/events.out.tfevents.1",
        "notes.txt",
        "checkpoints/mine.txt",
    ):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("x")
    if linked:
        folder.symlink_to(target)
    remove_begun(folder)
    left = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert left == ["checkpoints/mine.txt", "notes.txt"]
    for name in left:
        (target / name).unlink()
    (target / "checkpoints").rmdir()
    remove_begun(folder)
    assert linked or not folder.exists()
