import re
from pathlib import Path
from typing import get_args

import pytest
from command_line import command, refused

import cyclemlp
from cyclemlp.cli import app
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.build_config import build_config
from cyclemlp.tasks.option_names import own_spelling
from cyclemlp.tasks.options import flat
from cyclemlp.tasks.recipes import read_recipe

TASKS = ("segmentation", "classification", "detection", "instance-segmentation")
VERBS = (*(("train", task) for task in TASKS), ("predict",), ("eval",), ("export",), ("data",), ("bench",))
BRITISH = re.compile(
    "(colo|behavio|neighbo|favo)ur|(optim|normal|organ|initial|regular)is[ae]|grey|centre|metre|labell"
)


def words_of(verb: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """The names of a verb's options, and the values that are words."""
    _, commands, _ = app.parse_commands(verb)
    arguments = commands[-1].assemble_argument_collection()
    names = {name for argument in arguments for name in argument.names if name.startswith("--")}
    return names, {value for argument in arguments for value in get_args(argument.hint) if isinstance(value, str)}


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_british_option_has_an_american_name(verb: tuple[str, ...]) -> None:
    names, values = words_of(verb)
    assert names
    for name in filter(BRITISH.search, names):
        american = name.replace("colour", "color")
        assert not BRITISH.search(american), f"{name} needs a line in _SPELLINGS"
        assert own_spelling(american) == name
    assert not [value for value in values if BRITISH.search(value)]
    assert {own_spelling(name) for name in names} == names


def test_the_test_above_sees_options() -> None:
    names, values = words_of(("train", "classification"))
    assert "--colour-jitter" in names
    assert "multistep" in values


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("--color-jitter", "--colour-jitter"),
        ("--color-jitter=0.2", "--colour-jitter=0.2"),
        ("--out=color", "--out=color"),
        ("color_jitter", "colour_jitter"),
        ("-color", "-color"),
        ("--lr", "--lr"),
    ],
)
def test_spelling(given: str, ours: str) -> None:
    assert own_spelling(given) == ours


@pytest.mark.parametrize("option", [["--color-jitter", "-1"], ["--color-jitter=-1"]])
def test_the_command_takes_it(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "train", "classification", "--data", "color", *option)
    assert message == "cyclemlp: --colour-jitter -1.0 is not allowed: 0 or more\n"


def test_folders_keep_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "train", "segmentation", "--data", "color").startswith("cyclemlp: color is missing")


@pytest.mark.parametrize(
    ("task", "option"), [("classification", "colour_jitter"), ("segmentation", "colour_probability")]
)
def test_python_takes_it_and_the_config_holds_our_name(task: str, option: str) -> None:
    american = option.replace("colour", "color")
    config = build_config(task, {"data": "d", american: 0.125})
    assert flat(config)[option.replace("_", "-")] == 0.125
    assert american.replace("_", "-") not in flat(config)
    with pytest.raises(ConfigError, match="multiple times"):
        build_config(task, {"data": "d", american: 0.125, option: 0.25})


def test_recipes_take_it(tmp_path: Path) -> None:
    base, recipe = tmp_path / "base.yaml", tmp_path / "own.yaml"
    base.write_text("colour-jitter: 0.5\n")
    recipe.write_text("base: base.yaml\ncolor_jitter: 0.25\n")
    assert build_config("classification", {"data": "d"}, str(recipe)).augmentation.colour_jitter == 0.25  # type: ignore[attr-defined]
    config = build_config("classification", {"data": "d", "color_jitter": 0.125}, str(recipe))
    assert flat(config)["colour-jitter"] == 0.125
    recipe.write_text("colour_jitter: 0.5\ncolor_jitter: 0.25\n")
    with pytest.raises(ConfigError, match="colour-jitter is given twice, once as color_jitter: leave one of them out"):
        read_recipe(str(recipe), ["colour-jitter"])


def test_optimisers_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "train", "segmentation", "--data", "d", "--optimizer", "sgd")
    assert "sgd" in message
    assert all(name in message for name in ("auto", "muon", "adamw"))
    assert "--optimizer" in refused(capsys, "train", "segmentation", "--data", "d", "--optimiser", "adamw")


def test_what_is_the_same_in_every_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--normalization. There is none: values are normalised as ImageNet's are"):
        cyclemlp.train("detection", data="d", normalization="batch")
    (tmp_path / "r.yaml").write_text("normalisation: batch\n")
    with pytest.raises(ConfigError, match=r"unknown option 'normalisation'\. There is none: values are normalised as"):
        cyclemlp.train("segmentation", data="d", config=str(tmp_path / "r.yaml"))


def test_bench_is_asked_for_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("models", "--filter", "cyclemlp_nano", "--color") == 2
    assert "Unknown option" in capsys.readouterr().err
