"""The memory that a piece of work takes."""

from cyclemlp.inference.rounds import Case
from cyclemlp.machine import forget_peak, peak_bytes, resident_bytes, return_free_memory


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
