"""Stopping on Ctrl-C and SIGTERM at the end of a step, where a checkpoint can be exact."""

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class TrainingHelped(Exception):  # noqa: N818  (an outcome, not an error)
    """One of several processes has done its share; the first one writes model and report."""


class TrainingStopped(Exception):  # noqa: N818  (an outcome, not an error)
    """A run was stopped by a signal. Its checkpoint is written, unless `replaced_run_is_back`."""

    def __init__(self, signum: int, step: int, run_dir: Path, *, replaced_run_is_back: bool = False) -> None:
        note = f"before the first checkpoint: {run_dir} has the run again that was to be replaced"
        super().__init__(
            f"stopped at step {step}{f', {note}' if replaced_run_is_back else f': continue with --resume {run_dir}'}"
        )
        self.signum = signum
        self.step = step
        self.run_dir = run_dir
        self.replaced_run_is_back = replaced_run_is_back


class StopRequest:
    """Remembers the first SIGINT or SIGTERM; a second one interrupts at once."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._error: Exception | None = None

    def interrupt(self, error: Exception) -> None:
        """From another thread: let the main thread raise `error` as soon as it runs Python."""
        self._error = error
        _thread.interrupt_main(signal.SIGTERM)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if (error := self._error) is not None:
            self._error = None
            raise error
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum

    @contextmanager
    def watching(self) -> Iterator["StopRequest"]:
        """Handle the two signals within the block. Outside the main thread, where no signals arrive, does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
