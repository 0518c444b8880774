"""Console entry point, outside the package so that `cyclemlp --help` answers before torch is imported.

`import cyclemlp` registers the models with timm, which imports torch (about five seconds); while this module is
loaded the package leaves that to the commands that need it.

It is also the place for what has to be set before torch is loaded. By default the threads of a parallel region wait for
each other in a busy loop. Where another program has one of the cores, most of the time goes to waiting: on two cores
with one of them busy, a training step of `cyclemlp_nano` took ten times as long as with threads that sleep meanwhile.
"""

import os
import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] != ["bench"]:  # which measures networks as they run in a program of one's own
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from cyclemlp.cli import main as run

    run()
