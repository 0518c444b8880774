"""What docs/training.md says: its commands exist."""

import re
from pathlib import Path

import pytest

from cyclemlp.cli import app

PAGE = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
LINES = re.findall(r"^ {4}(cyclemlp .*?)(?:\s+#.*)?$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_commands_parse(line: str) -> None:
    app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)
