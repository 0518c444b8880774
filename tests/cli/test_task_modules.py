import pytest

from cyclemlp.cli.task_modules import refuse_foreign_options, task_module
from cyclemlp.errors import ConfigError


@pytest.mark.parametrize("task", ["segmentation", "classification"])
@pytest.mark.parametrize(
    ("verb", "names"),
    [("eval", ["OPTIONS", "evaluate", "table"]), ("predict", ["OPTIONS", "endings", "write", "line"])],
)
def test_a_task_has_its_modules(task: str, verb: str, names: list[str]) -> None:
    module = task_module(verb, task)
    assert all(hasattr(module, name) for name in names)


def test_task_without_a_module() -> None:
    with pytest.raises(ConfigError, match="predict does not know models for fortune-telling: update cyclemlp"):
        task_module("predict", "fortune-telling")


def test_options_that_were_not_given_are_no_foreign_ones() -> None:
    refuse_foreign_options("segmentation", (), {"crop": None, "no_pictures": False})
    with pytest.raises(ConfigError, match="--image-size is not for segmentation models: leave it out"):
        refuse_foreign_options("segmentation", ("crop",), {"crop": 0.9, "image_size": 64})
