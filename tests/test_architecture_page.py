"""What docs/architecture.md says: its files and links exist, and its names are defined where it says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE_PATH = ROOT / "docs" / "architecture.md"
PAGE = PAGE_PATH.read_text(encoding="utf-8")
PACKAGE = ROOT / "src" / "cyclemlp"


def _find(name: str) -> Path:
    return PACKAGE / name if (PACKAGE / name).exists() else ROOT / name


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_]+/[a-z0-9_/.]*)`", PAGE))))
def test_files_and_folders_exist(name: str) -> None:
    if name not in ("tensorboard/", "mlflow/", "wandb/") and not name.startswith("checkpoints/"):  # of a run folder
        assert _find(name).exists()


@pytest.mark.parametrize(("name", "file"), sorted(set(re.findall(r"`(\w+)` (?:in|of)\s+`([\w/]+\.py)`", PAGE))))
def test_names_are_defined_where_the_page_says(name: str, file: str) -> None:
    text = _find(file).read_text(encoding="utf-8")
    assert re.search(rf"^(?:def|class) {name}\b|^{name}\b.* = ", text, re.MULTILINE)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", PAGE))))
def test_links_lead_somewhere(link: str) -> None:
    assert (PAGE_PATH.parent / link).exists()
