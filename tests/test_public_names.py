"""The names that `import cyclemlp` offers."""

import subprocess
import sys

import cyclemlp


def test_dir_lists_the_public_names() -> None:
    assert [name for name in dir(cyclemlp) if not name.startswith("_")] == sorted(cyclemlp.__all__)
    for name in cyclemlp.__all__:
        assert getattr(cyclemlp, name) is not None
    assert {"train", "evaluate", "predict", "export"} <= set(cyclemlp.__all__)


def test_the_function_export_stays_when_the_package_of_that_name_is_used() -> None:
    code = (
        "import cyclemlp, cyclemlp.export\n"
        "from cyclemlp import api\n"
        "from cyclemlp.export.formats import FORMATS\n"
        "assert cyclemlp.export is api.export, cyclemlp.export\n"
        "assert 'onnx' in FORMATS\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
