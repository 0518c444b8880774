import logging
from collections.abc import Callable

import pytest

from cyclemlp.inference.evaluate import Evaluator
from cyclemlp.tasks.options import Length
from cyclemlp.tasks.registry import get_task
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.training import plan
from cyclemlp.training.fabric import build_fabric
from cyclemlp.training.run import run_training
from cyclemlp.training.state import TrainingState

Configured = Callable[..., SegmentationConfig]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(plan, "SECONDS_TO_MEASURE", 0.0)
    monkeypatch.setattr(plan, "STEPS_TO_MEASURE", 1)
    caplog.set_level(logging.INFO)


def state_of(config: SegmentationConfig) -> tuple[TrainingState, Evaluator]:
    task = get_task("segmentation")
    dataset = task.find_dataset(config.data)
    parts = task.training_parts(config, dataset)
    return TrainingState(build_fabric(config), config, parts), Evaluator(parts.card, dataset)


@pytest.mark.usefixtures("small_networks", "at_once")
def test_a_run_says_what_it_will_have(configured: Configured, caplog: pytest.LogCaptureFixture) -> None:
    run_training(get_task("segmentation"), configured(steps=6))
    assert not any("steps are few" in message for message in caplog.messages)  # they were asked for
    (line,) = [message for message in caplog.messages if message.startswith("plan: ")]
    assert "plan: about 6 steps of " in line
    assert "for the evaluation of " in line


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(("at_the_end", "left"), [(100.0, 180.0), (1000.0, 150.0)])
def test_time_is_kept_for_the_end(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, at_the_end: float, left: float
) -> None:
    """Of 300 seconds 20 are spent and 100 are kept; 1000 would leave none, so half of them are trained."""
    monkeypatch.setattr(plan, "seconds_at_the_end", lambda *_: at_the_end)
    state, evaluator = state_of(configured(length=Length(max_time="5m")))
    plan.Plan(state, evaluator).reserve(20.0)
    assert state.training_seconds == left
    assert state.state_dict()["overhead_seconds"] == 20.0 + at_the_end


@pytest.mark.usefixtures("small_networks", "at_once")
def test_a_long_evaluation_is_announced(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plan, "seconds_at_the_end", lambda *_: 1000.0)
    run_training(get_task("segmentation"), configured(length=Length(steps=6, max_time="5m")))
    assert any(
        "the command will take 14:" in message and "more than --max-time" in message for message in caplog.messages
    )


@pytest.mark.usefixtures("small_networks", "at_once")
def test_few_steps_are_named_with_what_helps(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plan, "seconds_at_the_end", lambda *_: 1.0)
    run_training(get_task("segmentation"), configured(length=Length(max_time="6s")))
    assert any("steps are few: a smaller --batch-size, " in message for message in caplog.messages)


@pytest.mark.usefixtures("small_networks")
def test_the_evaluation_at_the_end_is_measured(configured: Configured) -> None:
    state, evaluator = state_of(configured(length=Length(max_time="5m")))
    assert 8.0 < plan.seconds_at_the_end(state, evaluator) < 60.0
    assert state.model.training
