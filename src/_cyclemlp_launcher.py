"""Console entry point, outside the package so that `cyclemlp --help` answers before torch is imported.

`import cyclemlp` registers the models with timm, which imports torch (about five seconds); while this module is
loaded the package leaves that to the commands that need it.

It is also the place for what has to be set before torch is loaded: how the threads of a parallel region wait for each
other. In a busy loop, the default, most of the time goes to waiting where another program has one of the cores: on two
cores with one of them busy, a training step of `cyclemlp_nano` took ten times as long as with threads that sleep. But
waking them costs a third of the step on an idle machine. So threads sleep on a busy machine, and elsewhere after a loop
that is short enough for load that comes later.
"""

import os
import sys
import time
from pathlib import Path

SPINS = "10000"
BUSY_CORES = 0.5
"""Cores used by others from which on the machine is busy."""
_SECONDS = 0.1
_VERBS = {"train", "eval", "predict", "demo", "export"}


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] and sys.argv[1] in _VERBS and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        name, value = ("OMP_WAIT_POLICY", "passive") if cores_in_use() >= BUSY_CORES else ("GOMP_SPINCOUNT", SPINS)
        os.environ[name] = value
    from cyclemlp.cli import main as run

    run()


def cores_in_use(seconds: float = _SECONDS) -> float:
    """Cores that are busy while this process sleeps; 0 where the system does not say."""
    try:
        before = _processor_times()
        time.sleep(seconds)
        after = _processor_times()
    except (OSError, ValueError):
        return 0.0
    total = sum(after) - sum(before)
    idle = sum(after[3:5]) - sum(before[3:5])
    return (os.cpu_count() or 1) * (1 - idle / total) if total > 0 else 0.0


def _processor_times() -> list[int]:
    """Of all cores together, in ticks: user, nice, system, idle, waiting for disks, and others."""
    first, *_ = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    return [int(number) for number in first.split()[1:]]
