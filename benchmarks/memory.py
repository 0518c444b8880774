"""The memory that a piece of work takes."""

import ctypes
from contextlib import suppress
from pathlib import Path

from cyclemlp.inference.rounds import Case
from cyclemlp.machine import peak_bytes, reported_bytes


def grown_bytes(case: Case) -> int | None:
    """The maximum resident during `case` minus what was resident before it; None where the system does not report it.

    Needs a fresh process, in which the case has run once so that libraries are set up.
    """
    return_free_memory()
    before = resident_bytes()
    forget_peak()
    case()
    most = peak_bytes()
    return None if most is None or before is None else most - before


def available_bytes() -> int | None:
    """Memory that can be allocated without swapping; None where the system does not report it."""
    return reported_bytes(Path("/proc/meminfo"), "MemAvailable")


def resident_bytes() -> int | None:
    """Memory this process holds now; None where the system does not report it."""
    return reported_bytes(Path("/proc/self/status"), "VmRSS")


def return_free_memory() -> None:
    """Return freed memory to the system, so that it counts as taken when it is taken again (glibc)."""
    with suppress(AttributeError, OSError, TypeError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> None:
    """Restart the peak at what is held now; where the system cannot, the peak of the whole process remains."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
