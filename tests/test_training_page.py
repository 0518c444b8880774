"""What docs/training.md says: its commands exist."""

import re
from pathlib import Path

import pytest

from cyclemlp.cli import app
from cyclemlp.files import write_text

PAGE = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
LINES = re.findall(r"^ {4}(cyclemlp .*?)(?:\s+#.*)?$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_commands_parse(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(Path("runs/segmentation-2/config.yaml"), "data: /data\n")  # that lines go on with
    app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)
