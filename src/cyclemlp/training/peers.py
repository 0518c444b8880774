"""Processes that train together end together: what ends one of them ends all, each with its line, within seconds.

A process that fails leaves a note in the store through which torch has connected the processes, and disconnects. The
others look for one every `SECONDS_BETWEEN_LOOKS`, in a thread that interrupts the main one: an evaluation, for example,
shares nothing for minutes. Where the main thread waits for the others it goes on when the one that failed has ended.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from lightning.fabric import Fabric

from cyclemlp.errors import UserError
from cyclemlp.models.torch_internals import process_store
from cyclemlp.training.stopping import StopRequest, TrainingStopped

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 10.0
"""After a note a process that is still not done is ended without cleaning up: on a GPU it may wait for ever."""
SECONDS_TO_BE_SEEN = 2.0
"""How long a process that fails waits until the others know: the store is that of process 0, and ends with it."""
_FAILED, _SEEN = "cyclemlp/failed", "cyclemlp/seen"
_LEFT = "ended without a word, as when it is killed because memory runs out"

_logger = logging.getLogger(__name__)


class PeerError(UserError):
    """Another process of the run has failed."""


@contextmanager
def connected_processes(fabric: Fabric, stop: StopRequest) -> Iterator[None]:
    """Whatever ends the block early in one process ends it in the others, too: there it raises PeerError.

    The processes are disconnected after it, since gloo can hang when the interpreter does it at exit.
    """
    if not torch.distributed.is_initialized():
        yield
        return
    peers = _Peers(fabric, stop)
    try:
        yield
        peers.leave()
        fabric.barrier()  # the store of the notes ends with process 0
    except TrainingStopped:  # all of them have
        raise
    except BaseException as error:
        if (failure := peers.failure_behind(error)) is not error:
            raise failure from error
        raise
    finally:
        peers.part()


class _Peers:
    """The other processes, as seen from this one."""

    def __init__(self, fabric: Fabric, stop: StopRequest) -> None:
        self._store: Store = process_store()
        self._rank, self._others = fabric.global_rank, fabric.world_size - 1
        self._stop = stop
        self._failed = False
        self._found: str | None = None
        self._leaving, self._gone = threading.Event(), threading.Event()
        if threading.current_thread() is threading.main_thread():  # only that one can be interrupted
            threading.Thread(target=self._watch, args=(self._store.clone(),), daemon=True).start()

    def leave(self) -> None:
        """Interrupt this process no more."""
        self._leaving.set()

    def failure_behind(self, error: BaseException) -> BaseException:
        """PeerError where another process has caused `error`, else `error` itself, after telling the others of it."""
        self.leave()
        self._failed = True
        note = None
        if isinstance(error, RuntimeError) and not isinstance(error, UserError):
            note = self._found or _note(self._store)
            if note is None and _is_of_a_connection(error):
                note = f"another process {_LEFT}"
        if note is None:
            self._tell(f"process {self._rank} failed: {_in_a_line(error)}")
            return error
        self._tell(note)
        return _stopped_by(note)

    def part(self) -> None:
        """Disconnect; after a failure this lets the others go on, to find the note."""
        self.leave()
        torch.distributed.destroy_process_group()
        if self._failed:
            self._wait_until_seen()
        self._gone.set()

    def _tell(self, note: str) -> None:
        try:
            self._store.compare_set(_FAILED, "", note)  # the first note stays
        except RuntimeError:
            _logger.debug("the process that keeps the notes has gone")

    def _wait_until_seen(self) -> None:
        until = time.monotonic() + SECONDS_TO_BE_SEEN
        try:
            while self._store.add(_SEEN, 0) <= self._others and time.monotonic() < until:
                time.sleep(0.05)
        except RuntimeError:
            return  # the process that keeps the notes has gone

    def _watch(self, store: "Store") -> None:
        """In a thread: wait for a note, and see to it that this process ends then."""
        while self._found is None:
            if self._gone.wait(SECONDS_BETWEEN_LOOKS):
                return
            self._found = _note(store, seen=True)
        if not self._leaving.is_set():
            self._stop.interrupt(_stopped_by(self._found))
        if not self._gone.wait(SECONDS_TO_END):
            _logger.error("cyclemlp: %s", _stopped_by(self._found))
            os._exit(UserError.exit_status)


def _stopped_by(note: str) -> PeerError:
    return PeerError(f"this process stops, because {note}")


def _note(store: "Store", *, seen: bool = False) -> str | None:
    """What the first process that failed has left; with `seen` it learns that another one has found it."""
    try:
        if not store.check([_FAILED]):
            return None
        note = store.get(_FAILED).decode()
        store.add(_SEEN, int(seen))
        return note
    except RuntimeError:  # the process that keeps the store has ended
        return f"process 0 {_LEFT}"


def _is_of_a_connection(error: BaseException) -> bool:
    """Whether it says that another process does not answer; gloo's errors have no type of their own."""
    return isinstance(error, RuntimeError) and (isinstance(error, torch.distributed.DistError) or "gloo" in str(error))


def _in_a_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:1000]
    return text if isinstance(error, UserError | OSError) else f"{type(error).__name__} {text}".strip()
