"""A small share of `python -m benchmarks faults`, and the disk and the oracle that it relies on."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.failing_disk import FailingDisk, Fault
from benchmarks.fault_subjects import half_written
from benchmarks.faults import Bench, Ended
from cyclemlp.files import atomic_write

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked, and names found in /proc"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CYCLEMLP_CACHE", "")  # which the benchmark sets
        yield Bench(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(
    ("name", "fault", "at"),
    [
        ("training", "killed", 5),  # before there is a run
        ("training", "full", 70),
        ("continued prediction", "killed", 12),  # while the journal is written
        ("continued prediction", "full", 40),
    ],
)
def test_nothing_is_lost(name: str, fault: Fault, at: int, bench: Bench) -> None:
    found = bench.case(name, fault, at)
    assert found is not None, "there are fewer operations"
    assert [f"{each['operation']}: {each['problem']}: {each['what']}" for each in found] == []


def test_the_oracle_sees_what_is_lost(bench: Bench) -> None:
    (bench.sandbox / "out").mkdir(parents=True, exist_ok=True)
    (bench.sandbox / "out" / "a.png").write_bytes(b"\x89PNG half")
    (bench.sandbox / "out" / "b.json").write_text("{")
    (bench.sandbox / "out" / "c.csv").write_text("a,b\n1")
    (bench.sandbox / "out" / ".d-12345678.json").write_text("{")
    assert [each.partition(":")[0] for each in half_written(bench.sandbox)] == ["out/a.png", "out/b.json", "out/c.csv"]


@pytest.mark.parametrize(
    ("fault", "status", "lines", "is_right"),
    [
        ("broken", 2, ["some news", "cyclemlp: cannot write"], True),
        ("full", 0, ["some news"], True),
        ("killed", -9, [], True),
        ("killed", 0, [], False),
        ("full", -14, [], False),
        ("full", 1, ["cyclemlp: cannot write"], False),
        ("full", 2, ["cyclemlp: cannot write", "cyclemlp: cannot read"], False),
        ("full", 2, ["cyclemlp: cannot write", "and more"], False),
        ("full", 2, ["Traceback (most recent call last):", "cyclemlp: cannot write"], False),
    ],
)
def test_the_oracle_wants_one_line(fault: Fault, status: int, lines: list[str], is_right: bool) -> None:
    assert bool(faults._not_a_line(fault, Ended(status, lines))) != is_right


def whole(path: Path) -> None:
    with atomic_write(path) as part:
        part.write_text("content")


def appended(path: Path) -> None:
    with path.open("a") as file:
        file.write("content")


@pytest.mark.parametrize(
    ("write", "operations"),
    [(whole, ["open", "open", "write", "open", "fsync", "rename", "open", "fsync"]), (appended, ["open", "write"])],
)
def test_each_operation_fails_once(write: Callable[[Path], None], operations: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for at, kind in enumerate(operations, 1):
        path.unlink(missing_ok=True)
        disk = FailingDisk(tmp_path, "broken", at)
        with disk.in_use(), pytest.raises(OSError, match="Input/output error"):
            write(path)
        assert disk.met.startswith(f"{kind} ")
    disk = FailingDisk(tmp_path, "broken", len(operations) + 1)
    with disk.in_use():
        write(path)
    assert disk.count == len(operations)
    assert path.read_text().endswith("content")


def test_a_kill_comes_in_the_middle_of_a_write(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with FailingDisk(tmp_path, "killed", 2).in_use():
            appended(tmp_path / "a.txt")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "con"


def test_a_full_disk_stays_full_but_for_names(tmp_path: Path) -> None:
    (tmp_path / "before").write_text("content")
    disk = FailingDisk(tmp_path, "full", 2)
    with disk.in_use():
        first = (tmp_path / "first").open("w")
        for name in ("second", "third"):
            with pytest.raises(OSError, match="No space left"):
                (tmp_path / name).open("w")
        os.rename(tmp_path / "before", tmp_path / "after")  # noqa: PTH104
        assert (tmp_path / "after").read_text() == "content"
        first.write("content")
        with pytest.raises(OSError, match="No space left"):
            first.close()
    assert disk.met == "open second"


def test_files_elsewhere_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    disk = FailingDisk(tmp_path / "here", "broken", 1)
    with disk.in_use():
        appended(tmp_path / "here too")
    assert disk.count == 0
