"""A fixed small share of `python -m benchmarks fuzz`, and the guard that it relies on."""

import os
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import fuzz
from benchmarks.fuzz import ForbiddenError, damaged, judge, planned
from benchmarks.fuzz_subjects import SUBJECTS, Subject
from benchmarks.mutations import flip
from cyclemlp.data.image_errors import ImageError
from cyclemlp.data.images import read_image
from cyclemlp.errors import DataError
from cyclemlp.files import write_png, write_text

CASES = 12
QUICK = (
    "image",
    "png",
    "mask",
    "coco",
    "voc",
    "yolo",
    "recipe",
    "torch",
    "array",
    "raster",
    "mask raster",
    "map",
    "pairs",
    "metrics",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_result_or_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLEMLP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "files"
    folder.mkdir()
    SUBJECTS[name].write(folder)
    for number in range(CASES):
        target, content = damaged(SUBJECTS[name], folder, number, seed=1)
        intact = target.read_bytes()
        target.write_bytes(content)
        outcome = judge(SUBJECTS[name], folder, target)
        assert isinstance(outcome, str), f"case {number}, {target.name}: {outcome}"
        target.write_bytes(intact)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "corpus").iterdir()), ids=lambda path: path.name)
def test_what_was_found_before(path: Path, tmp_path: Path) -> None:
    """Files on which a command ended in a traceback, as `python -m benchmarks fuzz --corpus` keeps them."""
    name, _, place = path.name.split("-", 2)
    SUBJECTS[name].write(tmp_path)
    target = tmp_path / place.replace("__", "/")
    target.write_bytes(path.read_bytes())
    assert judge(SUBJECTS[name], tmp_path, target) in ("results", "refusals")


def test_a_chunk_that_says_it_is_larger_than_its_file_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, Image.new("RGB", (32, 32)))
    content = path.read_bytes()
    place = content.index(b"IDAT") - 4
    path.write_bytes(content[:place] + (2**32 - 9).to_bytes(4) + content[place + 4 :])
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"is damaged or incomplete \(a chunk of 4294967287 bytes\)"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_lack_of_memory_counts_only_where_the_file_needs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that has had many cases may have too little left for the next one."""
    alone = tmp_path / "alone"

    def read(folder: Path, path: Path) -> list[str]:
        if path.read_text(encoding="utf-8") != "intact" and (alone.name not in folder.parts or alone.exists()):
            raise MemoryError
        return []

    subject = Subject("x", 1, lambda folder: write_text(folder / "a", "intact"), "*", (lambda *_: b"damaged",), read)
    monkeypatch.setitem(SUBJECTS, "x", subject)
    assert [outcome for _, outcome in fuzz.run_cases([("x", 0)], seed=0)] == ["results"]
    alone.touch()
    assert [outcome["fault"] for _, outcome in fuzz.run_cases([("x", 0)], seed=0) if isinstance(outcome, dict)] == [
        "memory"
    ]


def test_every_subject_gets_its_share() -> None:
    weights = sum(each.weight for each in SUBJECTS.values())
    names = [name for name, _ in planned(2 * weights)]
    assert {name: names.count(name) for name in SUBJECTS} == {n: 2 * each.weight for n, each in SUBJECTS.items()}


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (DataError("two\nlines"), "several lines"),
        (DataError(""), "no line"),
        (DataError("x" * 3000), "a long line"),
        (KeyError("x"), "exception"),
        (IsADirectoryError(21, "is a folder"), "exception"),
        (MemoryError(), "memory"),
        (ForbiddenError("os.system"), "forbidden"),
    ],
)
def test_the_oracle_sees_faults(error: BaseException, fault: str, tmp_path: Path) -> None:
    def read(_folder: Path, _path: Path) -> list[str]:
        raise error

    outcome = judge(Subject("x", 1, lambda _: None, "*", (flip,), read), tmp_path, tmp_path)
    assert isinstance(outcome, dict)
    assert outcome["fault"] == fault


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("open", ("/tmp/outside", "w", os.O_WRONLY | os.O_CREAT)),
        ("os.mkdir", ("/tmp/outside", 511, -1)),
        ("os.system", (b"true",)),
        ("subprocess.Popen", ("true", ["true"], None, None)),
        ("socket.connect", (None, ("127.0.0.1", 80))),
    ],
)
def test_the_guard_sees_what_no_file_may_cause(event: str, arguments: tuple[object, ...], tmp_path: Path) -> None:
    with pytest.raises(ForbiddenError, match=event):
        fuzz._Guard(tmp_path)(event, arguments)


def test_the_guard_lets_files_be_read_and_the_sandbox_be_written(tmp_path: Path) -> None:
    guard = fuzz._Guard(tmp_path)
    guard("open", ("/etc/hostname", "r", os.O_RDONLY | os.O_CLOEXEC))
    guard("open", (str(tmp_path / "a"), "w", os.O_WRONLY | os.O_CREAT))
    guard("open", (os.devnull, "w", os.O_WRONLY))
