"""What docs/detection.md says: its commands exist, its links lead somewhere, its published figures are the recipes'."""

import re
from pathlib import Path

import pytest

from cyclemlp.cli import app
from cyclemlp.tasks.recipes import FOLDER, packaged

PAGE_PATH = Path(__file__).parents[1] / "docs" / "detection.md"
PAGE = PAGE_PATH.read_text(encoding="utf-8")
RECIPES = [name for name in packaged() if re.match(r"coco/.*-b\d$", name)]


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^ {4}(cyclemlp .*?)(?:\s+#.*)?$", PAGE, re.MULTILINE))))
def test_commands_parse(line: str) -> None:
    app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", PAGE))))
def test_links_lead_somewhere(link: str) -> None:
    assert (PAGE_PATH.parent / link).exists()


@pytest.mark.parametrize("name", RECIPES)
def test_published_figures_are_those_of_the_recipe(name: str) -> None:
    """`# published: 24.9 M parameters, AP 38.6 ...` at the head of a recipe, `| name | 24.9 M | 38.6 | ...` here."""
    (published,) = re.findall(r"^# published: (.*) on val2017", (FOLDER / f"{name}.yaml").read_text(), re.MULTILINE)
    (row,) = re.findall(rf"^\| {name} \| (.*) \|$", PAGE, re.MULTILINE)
    cells = row.split(" | ")
    wanted = re.findall(r"[\d.]+ M|(?<=AP )[\d.]+", published)
    assert len(wanted) == (3 if "mask" in name else 2)
    assert [cells[0], cells[1], cells[4]][: len(wanted)] == wanted
