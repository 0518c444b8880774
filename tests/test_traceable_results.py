"""Every figure leads back to the commit and the run that made it, and every table is what results/ renders."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mask_folders import write_mask_folder
from training_runs import train_segmentation

from cyclemlp import machine
from cyclemlp.tasks.options import Length, Machine, Optimisation
from cyclemlp.tasks.registry import get_task
from cyclemlp.tasks.segmentation.config import SegmentationConfig

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "results").glob("*.json"))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)


def commits_in(value: Any) -> set[str]:
    """Every value under the key `commit`, at any depth."""
    if isinstance(value, list):
        return {commit for each in value for commit in commits_in(each)}
    if not isinstance(value, dict):
        return set()
    here = value.get("commit")
    own = here if isinstance(here, list) else [here] if here is not None else []
    return {*own, *(commit for each in value.values() for commit in commits_in(each))}


@pytest.fixture(scope="module")
def full_history() -> None:
    answer = git("rev-parse", "--is-shallow-repository")
    if answer.returncode:
        pytest.skip("not a clone with git: there is no history to look in")
    if answer.stdout.strip() == "true":
        pytest.skip("a shallow clone: its history is cut off, so commits cannot be looked for")


@pytest.mark.usefixtures("full_history")
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_the_commit_of_a_result_is_in_the_history(path: Path) -> None:
    commits = commits_in(json.loads(path.read_text(encoding="utf-8")))
    assert commits
    missing = {commit for commit in commits if git("merge-base", "--is-ancestor", commit, "HEAD").returncode}
    assert not missing


def test_a_result_of_changed_code_is_not_in_the_history() -> None:
    assert git("merge-base", "--is-ancestor", "abc+", "HEAD").returncode


RENDERED = script("render_results")


@pytest.mark.parametrize("page", RENDERED.PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert RENDERED.render(text) == text
    places = re.findall(r"<!-- results:([\w-]+) -->", text)
    assert [name for name in places if not (ROOT / f"results/{name}.json").is_file()] == []
    assert set(places) <= set(RENDERED.TABLES)


WITH_RUNS = [path for path in RESULTS if "runs" in json.loads(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", WITH_RUNS, ids=lambda path: path.name)
def test_what_a_result_says_of_its_runs_agrees_with_itself(path: Path) -> None:
    """Model, length and images of each run follow from its command; its last score is the final one."""
    result = json.loads(path.read_text(encoding="utf-8"))
    for run in result["runs"]:
        words = shlex.split(run["command"])
        task = get_task(words[2])
        given = dict(pairwise(words))
        batch = int(given.get("--batch-size", task.config(data=Path()).optimisation.batch_size))
        assert run["images_seen"] == run["steps"] * batch
        assert given["--model"] == run["model"]
        assert given.get("--max-time") == run["budget"]
        main = task.scores.main
        assert run["curve"]["step"][-1] == run["steps"]
        assert run["curve"][main][-1] == pytest.approx(run["metrics"][main], abs=1e-4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("traceable")
    config = SegmentationConfig(
        data=write_mask_folder(root / "data", train=2, val=1, edge=32),
        out=root / "run",
        head_width=8,
        length=Length(steps=1, max_time="1m"),
        optimisation=Optimisation(batch_size=2),
        machine=Machine(device="cpu", workers=0),
    )
    return train_segmentation(config)


def test_a_comparison_tells_of_the_run_and_not_of_its_own_moment(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shutil.copytree(run, tmp_path / "run") / "run.json"
    run = path.parent
    record = json.loads(path.read_text())
    (session,) = record["sessions"]
    session |= {"commit": "0123456789ab", "threads": 7, "processor": "Elsewhere", "date": "2001-02-03T04:05:06+00:00"}
    path.write_text(json.dumps(record))
    monkeypatch.setattr(machine, "_commit", lambda _: "fedcba987654")
    compare = script("compare_runs")
    monkeypatch.setattr(sys, "argv", ["compare_runs.py", str(run), "--out", str(tmp_path / "r")])
    compare.main()
    result = json.loads((tmp_path / "r").read_text())
    (found,) = result["runs"]
    assert found["sessions"] == [{name: session[name] for name in compare.RECORDED if name in session}]
    assert {**found, "metrics": None} == {**json.loads(json.dumps(compare.describe(run))), "metrics": None}
    line = RENDERED.source(result)
    assert "at commit 0123456789ab, 2001-02-03, Elsewhere, 7 threads" in line
    assert str(run.parent) not in json.dumps(result)
    path.unlink()
    with pytest.raises(SystemExit, match=r"has no run\.json"):
        compare.main()


def test_runs_of_different_machines_are_named_both() -> None:
    compare = script("compare_runs")
    versions = {"torch": "2", "cyclemlp": "0.1"}
    first = {"date": "2001", "commit": "a", "dirty": False, "processor": "P", "cores": 2, "system": "s", "threads": 1}
    first |= {"versions": versions}
    second = {**first, "date": "2002", "commit": None, "processor": "Q"}
    made = compare.environment_of("c", [{"sessions": [first]}, {"sessions": [second]}])
    assert "at commit a, None, 2002, P, Q, 1 threads, torch 2." in RENDERED.source({"environment": made})
    alone = compare.environment_of("c", [{"sessions": [second]}])
    assert "at version 0.1, 2002, Q, 1 threads" in RENDERED.source({"environment": alone})


def test_runs_of_an_earlier_result_stay_in_their_places() -> None:
    compare = script("compare_runs")
    earlier = [{"run": "a", "steps": 1}, {"run": "b", "steps": 2}]
    made = compare.joined(earlier, [{"run": "c", "steps": 3}, {"run": "b", "steps": 4}])
    assert [(run["run"], run["steps"]) for run in made] == [("a", 1), ("b", 4), ("c", 3)]
