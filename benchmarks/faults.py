"""Every single write, fsync, rename and opening of a file goes wrong once, and no run may be lost by it.

Each case runs a command of `fault_subjects.COMMANDS` in a process of its own, on a disk whose k-th operation meets a
fault (`failing_disk.FAULTS`), for every k. It has to end with one line and exit status 2, or be killed; what was done
has to be there still, every file whole; and the same command, continued, has to end with the result of an undisturbed
one, byte for byte.
"""

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing import RawArray
from pathlib import Path
from typing import Any

import torch

from benchmarks.failing_disk import FAULTS, FailingDisk, Fault
from benchmarks.fault_subjects import (
    COMMANDS,
    FINISHED,
    HALF_PREDICTED,
    Command,
    half_written,
    killed_after_half,
    without_plots,
    write_inputs,
)
from benchmarks.records import command_line
from cyclemlp.cli import main
from cyclemlp.cli.bench_output import Json, Out, aligned, check_out, check_positive, deliver
from cyclemlp.errors import UserError
from cyclemlp.files import JsonObject
from cyclemlp.machine import environment

SECONDS = 120
"""After which a process is ended: it hangs."""
_KINDS = ("cases", "lost", "half-written", "without a line")
_IMPORTED = ("cyclemlp", "matplotlib", "tensorboard", "jinja2", "torch", "lightning", "PIL", "mpl_toolkits")

Finding = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    status: int
    """Negative for a signal."""
    lines: list[str]
    """Of standard error."""
    met: str = ""
    """The operation that met the fault; empty where none did."""
    done: int = 0
    """What the command had done just before."""


def faults(*, every: int = 1, out: Out = None, json: Json = False) -> None:
    """Let each write, fsync, rename and opening of trainings and predictions fail, or end the process there.

    Parameters
    ----------
    every
        Only every N-th operation.
    """
    check_out(out, "faults.json")
    check_positive(every=every)
    torch.set_num_threads(1)  # the processes are forked, and a pool of threads does not survive that
    started, made_by = time.monotonic(), environment(command_line(), 1, [])
    counts: Counter[tuple[str, Fault, str]] = Counter()
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory() as root:
        bench = Bench(Path(root))
        for name in COMMANDS:
            for fault in FAULTS:
                for found in bench.cases(name, fault, every):
                    counts[name, fault, "cases"] += 1
                    for problem in {each["problem"] for each in found}:
                        counts[name, fault, problem] += 1
                    findings += found
    record = {
        "bench": "faults",
        "environment": made_by,
        "every": every,
        "faults": FAULTS,
        "seconds": round(time.monotonic() - started, 1),
        "commands": {
            name: {fault: {kind: counts[name, fault, kind] for kind in _KINDS} for fault in FAULTS} for name in COMMANDS
        },
        "findings": findings,
    }
    deliver(record, _table(record), out, json)


class Bench:
    """The commands, and the results that they have undisturbed, in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        os.environ["CYCLEMLP_CACHE"] = str(self.root / "cache")
        write_inputs(self.root)
        self._expected: dict[str, object] = {}

    @property
    def sandbox(self) -> Path:
        """Where all commands write, since some of their files have its path in them."""
        return self.root / "sandbox"

    def cases(self, name: str, fault: Fault, every: int) -> Iterator[list[Finding]]:
        """What is wrong after the fault, for each operation."""
        at = 1
        while (found := self.case(name, fault, at)) is not None:
            yield found
            at += every

    def case(self, name: str, fault: Fault, at: int) -> list[Finding] | None:
        """The problems after the fault in operation `at`, None where there are fewer operations."""
        command, expected = COMMANDS[name], self._result(name)
        command.prepare(self._empty())
        ended = self._run(self.sandbox, command, fault=fault, at=at)
        if not ended.met:
            return None
        problems = list(self._problems(command, expected, fault, ended))
        where = {"command": name, "fault": fault, "at": at, "operation": ended.met}
        return [{**where, "problem": problem, "what": what[:400]} for problem, what in problems]

    def _problems(self, command: Command, expected: object, fault: Fault, ended: Ended) -> Iterator[tuple[str, str]]:
        if bad := _not_a_line(fault, ended):
            yield "without a line", bad
        for what in half_written(self.sandbox):
            yield "half-written", what
        try:
            kept = command.progress(self.sandbox)
        except UserError as error:
            yield "lost", f"cannot be continued: {error}"
        else:
            if kept < ended.done:
                yield "lost", f"{ended.done} were done, {kept} are left"
        again = self._run(self.sandbox, command)
        if again.status:
            yield "lost", f"continuing it ends with status {again.status}: {' / '.join(again.lines[-2:])}"
        elif command.result(self.sandbox) != expected:
            yield "lost", "continued, it has another result"

    def _empty(self) -> Path:
        shutil.rmtree(self.sandbox, ignore_errors=True)
        self.sandbox.mkdir()
        return self.sandbox

    def _result(self, name: str) -> object:
        """Of the command, undisturbed."""
        if name not in self._expected:
            self._make(COMMANDS[name].begins_with)
            COMMANDS[name].prepare(self._empty())
            ended = self._run(self.sandbox, COMMANDS[name])
            if ended.status:
                raise RuntimeError(f"undisturbed, {name} ends with status {ended.status}: {ended.lines}")
            self._expected[name] = COMMANDS[name].result(self.sandbox)
        return self._expected[name]

    def _make(self, what: str) -> None:
        """The folder of that name, from which a command goes on."""
        if what == FINISHED:
            self._run(self._empty(), COMMANDS["training"])
        elif what == HALF_PREDICTED:
            self._run(self._empty(), COMMANDS["prediction"], killed_after_half())
        if what:
            self.sandbox.rename(self.root / what)

    def _run(
        self, sandbox: Path, command: Command, change: AbstractContextManager[Any] | None = None, *,
        fault: Fault = "broken", at: int = 0,
    ) -> Ended:  # fmt: skip
        """Run the command to its end; with `at` on a failing disk."""
        arguments = command.arguments(sandbox)
        log, modules = self.root / "stderr.txt", self.root / "modules.txt"
        met, done = RawArray("c", 1000), RawArray("q", 1)

        def before_fault() -> None:
            met.value = disk.met.encode()
            done[0] = command.progress(sandbox)

        disk = FailingDisk(sandbox, fault, at, before_fault)
        child = os.fork()
        if not child:
            _work(arguments, disk, change or without_plots(), log, modules)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _import_what_it_did(modules)
        lines = log.read_text(encoding="utf-8").splitlines()
        return Ended(status, lines, met.value.decode(), done[0])


def _work(
    arguments: list[str], disk: FailingDisk, change: AbstractContextManager[Any], log: Path, modules: Path
) -> None:
    """In a forked process, which ends here."""
    status: Any = 1
    try:
        signal.alarm(SECONDS)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        with disk.in_use(), change:
            main(arguments)
        status = 0
    except SystemExit as stopped:
        status = stopped.code
    except BaseException:  # noqa: BLE001  a forked child must not go on as its parent
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        modules.write_text("\n".join(name for name in sys.modules if name.partition(".")[0] in _IMPORTED))
        os._exit(status)


def _import_what_it_did(modules: Path) -> None:
    """So that the next process need not."""
    if modules.is_file():
        for name in modules.read_text(encoding="utf-8").splitlines():
            if name not in sys.modules:
                with suppress(ImportError, AttributeError):
                    importlib.import_module(name)
        modules.unlink()


def _not_a_line(fault: Fault, ended: Ended) -> str:
    """What is wrong with the way a process ended; empty where nothing is."""
    errors = [line for line in ended.lines if line.startswith("cyclemlp: ")]
    if fault == "killed":
        return "" if ended.status == -signal.SIGKILL else f"status {ended.status}"
    if any("Traceback" in line for line in ended.lines):
        return f"status {ended.status}, a traceback: {ended.lines[-1]}"
    if ended.status == 0 and not errors:
        return ""  # it did without the file
    if ended.status != UserError.exit_status or len(errors) != 1 or ended.lines[-1] != errors[0]:
        return f"status {ended.status}: {' / '.join(ended.lines[-3:])}"
    return ""


def _table(record: JsonObject) -> str:
    rows = [("", "", *_KINDS)]
    for name, by_fault in record["commands"].items():
        rows += [(name, fault, *(str(counts[kind]) for kind in _KINDS)) for fault, counts in by_fault.items()]
    lines = [f"every {record['every']}. operation, {record['seconds']} s", *aligned(rows)]
    lines += [
        f"{f['command']}, {f['fault']} at {f['at']}, {f['operation']}: {f['problem']}: {f['what']}"
        for f in record["findings"]
    ]
    return "\n".join(lines) + "\n"
