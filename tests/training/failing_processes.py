"""Trainings with two processes, of which one fails.

Forked from the process of the tests, which has imported everything, each pair takes a second and not ten.
"""

import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from cyclopts import App
from training.two_processes import Network, Numbers, train_numbers

from cyclemlp.cli import run
from cyclemlp.errors import DataError

Cause = Callable[[], object]


def damaged_image() -> None:
    raise DataError("a.png is damaged: replace it")


def fault_of_ours() -> None:
    raise KeyError("x")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_an_image(cause: Cause) -> AbstractContextManager[Any]:
    usual = Numbers.__getitem__
    read: list[int] = []

    def getitem(self: Numbers, index: int) -> Any:
        read.append(index)
        if len(read) == 7:  # in the second step of five
            cause()
        return usual(self, index)

    return patch.object(Numbers, "__getitem__", getitem)


def not_a_number() -> AbstractContextManager[Any]:
    usual = Network.losses
    return patch.object(Network, "losses", lambda *batch: usual(*batch) * math.nan)


def long_wait() -> AbstractContextManager[Any]:
    """Shares nothing with the other process for a minute."""

    def wait() -> None:
        for _ in range(600):
            time.sleep(0.1)

    return in_an_image(wait)


CASES: dict[str, list[AbstractContextManager[Any] | None]] = {
    "damaged image in process 1": [None, in_an_image(damaged_image)],
    "damaged image in process 0": [in_an_image(damaged_image), None],
    "no number in process 1": [None, not_a_number()],
    "fault of ours in process 1": [None, in_an_image(fault_of_ours)],
    "process 1 killed": [None, in_an_image(killed)],
    "process 0 killed": [in_an_image(killed), None],
    "while process 0 is busy": [long_wait(), in_an_image(damaged_image)],
}


def train(out: Path, rank: int, port: int, change: AbstractContextManager[Any] | None) -> None:
    """As a process that torchrun has started."""
    torch.set_num_threads(1)
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {**world, **address}
    if change is not None:
        change.__enter__()
    program = App()
    program.default(lambda: train_numbers(out, batch_size=2, accumulate=2))
    run(program, [])


def start(out: Path, rank: int, port: int, change: AbstractContextManager[Any] | None) -> int:
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(f"{out}-{rank}.txt", os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115  pytest has put something else there
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s", force=True)
    status: Any = 1
    try:
        train(out, rank, port, change)
        status = 0
    except SystemExit as stopped:
        status = stopped.code
    except BaseException:  # noqa: BLE001  a forked child must not go on as its parent
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def run_all(folder: Path) -> dict[str, Any]:
    """For each case the seconds it took, and for each process its exit status and its lines of error."""
    found = {}
    for number, (name, changes) in enumerate(CASES.items()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        began, out = time.monotonic(), folder / str(number)
        children = [start(out, rank, port, change) for rank, change in enumerate(changes)]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        lines = [Path(f"{out}-{rank}.txt").read_text().splitlines() for rank in range(2)]
        found[name] = {"seconds": time.monotonic() - began, "statuses": statuses, "lines": lines}
    return found
