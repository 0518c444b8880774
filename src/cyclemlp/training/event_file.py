"""TensorBoard's event file, written row by row.

TensorBoard's own writer does this in a thread, where a full disk is a traceback that nothing can catch, or is not
noticed at all.
"""

import os
import platform
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """A new file in `folder`, which says of the earlier ones there that their events from `first_step` on are void.

    `options` are what TensorBoard calls hyperparameters.
    """

    def __init__(self, folder: Path, first_step: int, options: Mapping[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**9:010}.{platform.node()}.{os.getpid()}.{time.time_ns()}"
        with ExitStack() as stack:
            self._file = stack.enter_context((folder / name).open("xb"))
            self._records = RecordWriter(self._file)
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            started = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=first_step, session_log=started))
            if options:
                self._write(Event(wall_time=time.time(), step=first_step, summary=_hyperparameters(options)))
            self._file.flush()
            stack.pop_all()  # it stays open

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step."""
        for name, value in values.items():
            summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            self._write(Event(wall_time=time.time(), step=step, summary=summary))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


def _hyperparameters(options: Mapping[str, object]) -> Summary:
    """Numbers and switches as they are, all else as text."""
    return hparams_pb(
        {name: value if isinstance(value, bool | int | float) else str(value) for name, value in options.items()}
    )
