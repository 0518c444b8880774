"""The machine: what it is, what is installed on it, and whether other programs are using it. Imports no torch."""

import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cyclemlp
from cyclemlp.files import JsonObject

PACKAGES = ("cyclemlp", "torch", "torchvision", "timm", "numpy", "onnxruntime", "openvino")
BUSY_SHARE = 0.05
"""Share of the processors used by other programs above which the machine counts as busy."""


def pin_to_cores(count: int) -> list[int]:
    """Keep this process, and the threads it starts from now on, on the first `count` cores it may use.

    Returns:
        The cores, or an empty list where the system cannot pin (macOS, Windows).
    """
    os.environ["OMP_NUM_THREADS"] = str(count)  # for runtimes that are imported later
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return cores


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_first_process() -> bool:
    """Whether this is the first or only process of a run, by what torchrun, Lightning and SLURM tell the others."""
    ranks = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def busy_seconds() -> float | None:
    """Processor seconds spent so far by every program together, or None where the system does not report it."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Processor seconds spent so far by this process and the processes it started, such as readers of images."""
    times = os.times()
    readers = (_seconds_of(child.pid) for child in multiprocessing.active_children() if child.pid)
    return time.process_time() + times.children_user + times.children_system + sum(readers)


def _seconds_of(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime


class ForeignLoad:
    """Processor time used since the start by programs other than the benchmark, which has used `ours()` seconds."""

    def __init__(self, ours: Callable[[], float] = time.process_time) -> None:
        self._ours = ours
        self._start = time.monotonic(), busy_seconds(), ours()

    def share(self) -> float | None:
        """Of all cores; None where the system does not report it."""
        start, busy_before, ours_before = self._start
        busy = busy_seconds()
        if busy is None or busy_before is None:
            return None
        foreign = (busy - busy_before) - (self._ours() - ours_before)
        return max(0.0, foreign) / ((time.monotonic() - start) * (os.cpu_count() or 1))  # pinned or not


def peak_bytes() -> int | None:
    """Maximum memory of this process since its start or `forget_peak`; None where the system does not report it."""
    return reported_bytes(Path("/proc/self/status"), "VmHWM")


def reported_bytes(path: Path, name: str) -> int | None:
    """The entry `name` of a table of kilobytes below /proc; None where there is no such table or entry."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return next((1024 * int(kilobytes) for kilobytes in found), None)


def environment(command: str, threads: int, cores: list[int]) -> JsonObject:
    """What a reader needs to judge or repeat a measurement; no names of machines, users or folders."""
    commit = _commit(Path(cyclemlp.__file__).parent)
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": commit is not None and commit.endswith("+"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.release()}",
        "threads": threads,
        "pinned_to_cores": cores,
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit(package: Path) -> str | None:
    """Commit of the checkout the package is imported from, with '+' where files differ; None if it is none."""
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top) / "src" / "cyclemlp" != package:
        return None
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", ".")
    return f"{_git(package, 'rev-parse', '--short=12', 'HEAD')}{'+' if changed else ''}"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    return ", ".join(sorted(named)) or platform.machine()


def _memory_gb() -> float | None:
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
