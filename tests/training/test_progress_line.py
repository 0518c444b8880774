"""What a run says about the time it has left."""

import logging
import math
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cyclemlp.training import progress
from cyclemlp.training.progress import ProgressLine


@pytest.mark.parametrize(("training_seconds", "left"), [(None, "15:00"), (600.0, "05:00"), (200.0, "00:00")])
def test_an_evaluation_does_not_count_for_more_time_than_there_is(
    training_seconds: float | None, left: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A quarter was done after 100 seconds, then an evaluation took 200: at that pace 15 minutes would be left."""
    caplog.set_level(logging.INFO)
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(progress, "shows_bars", lambda: False)
    state = SimpleNamespace(step=0, progress=0.0, planned_steps=None, training_seconds=training_seconds)
    state.fabric = SimpleNamespace(is_global_zero=True)
    state.clock = SimpleNamespace(elapsed=lambda: now - 1000.0)
    losses = SimpleNamespace(latest=0.5, images_per_second=math.nan)
    evaluations = SimpleNamespace(history=SimpleNamespace(latest=None))
    line = ProgressLine(cast("Any", state), cast("Any", losses), cast("Any", evaluations))
    now, state.step, state.progress = 1300.0, 25, 0.25
    line.after_step()
    assert caplog.messages == [f"step 25, 25 %, loss 0.5000, {left} left"]
