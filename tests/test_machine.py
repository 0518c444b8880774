import json
import os
import subprocess
import sys

import pytest

from cyclemlp.machine import busy_seconds, environment, usable_cores


def test_environment_is_json_with_versions_and_date() -> None:
    found = json.loads(json.dumps(environment("cyclemlp bench cyclemlp_b1", 2, [0, 1])))
    assert {"torch", "timm", "python", "cyclemlp"} <= set(found["versions"])
    assert found["date"].endswith("+00:00")
    assert found["processor"]
    assert found["command"] == "cyclemlp bench cyclemlp_b1"


def test_environment_names_no_folder() -> None:
    assert os.sep + "src" not in json.dumps(environment("x", 1, []))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin")
def test_pins_in_a_process_of_its_own() -> None:
    program = (
        "import os, _cyclemlp_launcher; from cyclemlp.machine import pin_to_cores;"  # the launcher spares torch
        "print(pin_to_cores(1), os.sched_getaffinity(0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first = min(os.sched_getaffinity(0))
    assert done.stdout.strip() == f"[{first}] {{{first}}}"


def test_busy_seconds_grow() -> None:
    before = busy_seconds()
    if before is None:
        pytest.skip("the system does not report it")
    after = busy_seconds()
    assert after is not None
    assert after >= before
    assert usable_cores() >= 1
