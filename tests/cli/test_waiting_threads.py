"""Threads sleep while they wait for each other: on a busy machine a busy loop takes most of the time."""

import os
import subprocess
import sys

import pytest

from _cyclemlp_launcher import cores_in_use

SHOW = """
import os, sys
import _cyclemlp_launcher as launcher
import cyclemlp.cli
names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
cyclemlp.cli.main = lambda: print(*map(os.environ.get, names), "torch" in sys.modules)
launcher.cores_in_use = lambda: {busy}
launcher.main()
"""


@pytest.mark.parametrize(
    ("verb", "busy", "given", "shown"),
    [
        ("train", 1.0, None, "passive None False"),
        ("train", 0.0, None, "None 10000 False"),
        ("predict", 1.0, "active", "active None False"),
        ("bench", 1.0, None, "None None False"),
    ],
)
def test_set_before_torch_is_loaded(verb: str, busy: float, given: str | None, shown: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(busy=busy), verb],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == shown


def test_load_is_between_nothing_and_all_cores() -> None:
    assert 0.0 <= cores_in_use(0.05) <= (os.cpu_count() or 1)
