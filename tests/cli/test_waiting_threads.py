"""Threads sleep while they wait for each other: on a busy machine a busy loop takes most of the time."""

import os
import subprocess
import sys

import pytest

SHOW = "import os, sys; import cyclemlp.cli; cyclemlp.cli.main = lambda: print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"  # noqa: E501


@pytest.mark.parametrize(
    ("arguments", "given", "shown"),
    [
        (["train", "segmentation"], None, "passive False"),
        (["train", "segmentation"], "active", "active False"),
        (["bench", "cyclemlp_nano"], None, "None False"),
    ],
)
def test_set_before_torch_is_loaded(arguments: list[str], given: str | None, shown: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    program = f"import _cyclemlp_launcher; {SHOW}; _cyclemlp_launcher.main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == shown
