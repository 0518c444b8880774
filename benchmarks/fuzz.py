"""Damaged files by the thousand, and one oracle: a result, or one line of error; never code, a hang or a file outside.

Each case damages one file of `fuzz_subjects.SUBJECTS` and lets the package read it, in a process that cannot take more
than `MEMORY` or `SECONDS` of processor time. Python's audit events show attempts to start a program, to connect a
socket, or to write outside of the folder of the case. A case follows from the seed, the subject and its number alone.
"""

import errno
import gc
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import torch

from benchmarks.fuzz_subjects import SUBJECTS, Subject
from benchmarks.records import command_line
from cyclemlp.cli.bench_output import Json, Out, aligned, check_out, check_positive, deliver
from cyclemlp.errors import UserError
from cyclemlp.files import JsonObject
from cyclemlp.machine import environment

SECONDS = 5
MEMORY = 2 * 2**30
PATIENCE = 60.0
"""Seconds after which a process that does not answer is killed: code that Python cannot interrupt."""
PER_PROCESS = 1000
"""Cases for each process."""
MAX_MESSAGE = 2000
ONE_LINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG)
"""Those of OSError that the command line turns into a line."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn")
_SOCKETS = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo")
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")

Case = tuple[str, int]
Finding = dict[str, Any]


class ForbiddenError(BaseException):
    """The package did what no file may make it do; not an Exception, so that nothing takes it for damage."""


class TooSlowError(BaseException):
    """A case used up its processor time."""


def fuzz(*, cases: int = 2000, seed: int = 0, corpus: Path | None = None, out: Out = None, json: Json = False) -> None:
    """Damage images, labels, recipes, cards, weights and exported files; count results, refusals and faults.

    Parameters
    ----------
    cases
        How many damaged files.
    seed
        Of the damage.
    corpus
        Folder for the files that a fault was found with.
    """
    check_out(out, "fuzz.json")
    check_positive(cases=cases)
    torch.set_num_threads(1)  # the processes are forked, and a pool of threads does not survive that
    started, made_by = time.monotonic(), environment(command_line(), 1, [])
    counts: Counter[tuple[str, str]] = Counter()
    findings: list[Finding] = []
    for (name, number), fault in run_cases(planned(cases), seed):
        counts[name, "faults" if isinstance(fault, dict) else fault] += 1
        if isinstance(fault, dict):
            findings.append({"subject": name, "number": number, **fault})
            if corpus is not None:
                _keep(corpus, name, number, seed)
    kinds = ("results", "refusals", "faults")
    record = {
        "bench": "fuzz",
        "environment": made_by,
        "seed": seed,
        "cases": cases,
        "limits": {"processor_seconds": SECONDS, "memory_bytes": MEMORY, "message_characters": MAX_MESSAGE},
        "seconds": round(time.monotonic() - started, 1),
        "subjects": {name: {kind: counts[name, kind] for kind in kinds} for name in SUBJECTS},
        "faults": _distinct(findings),
    }
    deliver(record, _table(record), out, json)


def planned(cases: int) -> list[Case]:
    """Subjects by their weights, and the number of each case."""
    names = [name for name, subject in SUBJECTS.items() for _ in range(subject.weight)]
    Random(0).shuffle(names)  # so that a few cases are of all subjects
    return [(names[number % len(names)], number) for number in range(cases)]


def damaged(subject: Subject, folder: Path, number: int, seed: int) -> tuple[Path, bytes]:
    """One of the intact files in `folder`, and what is to be written in its place."""
    rng = Random(f"{seed}/{subject.name}/{number}")
    target = rng.choice(sorted(path for path in folder.glob(subject.targets) if path.is_file()))
    return target, rng.choice(subject.mutators)(target.read_bytes(), rng)


def judge(subject: Subject, folder: Path, target: Path) -> str | Finding:
    """'results' or 'refusals', or the fault that reading the damaged file shows."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            messages = subject.read(folder, target)
    except UserError as error:
        bad = _not_a_line(str(error))
        return {"fault": bad, **_described(error)} if bad else "refusals"
    except OSError as error:
        return "refusals" if error.errno in ONE_LINE_ERRORS else {"fault": "exception", **_described(error)}
    except TooSlowError as error:
        return {"fault": f"over {SECONDS} s", **_described(error)}
    except ForbiddenError as error:
        return {"fault": "forbidden", **_described(error)}
    except MemoryError as error:
        return {"fault": "memory", **_described(error)}
    except Exception as error:  # noqa: BLE001  whatever else comes out is what is looked for
        return {"fault": "exception", **_described(error)}
    for message in messages:
        if bad := _not_a_line(message):
            return {"fault": bad, "error": message[:200], "where": "a problem of the data set"}
    return "refusals" if messages else "results"


def run_cases(cases: Sequence[Case], seed: int) -> Iterator[tuple[Case, str | Finding]]:
    """Each case and its outcome, in processes that are replaced when they end or hang."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for subject in {name for name, _ in cases}:
            (root / "intact" / subject).mkdir(parents=True)
            SUBJECTS[subject].write(root / "intact" / subject)
        done = 0
        while done < len(cases):
            for outcome in _in_a_process(cases[done : done + PER_PROCESS], seed, root / "intact", root / "sandbox"):
                if isinstance(outcome, dict) and outcome["fault"] == "memory":
                    # Not of the file, perhaps, but of what the cases before it have left.
                    outcome = alone(cases[done], seed, root)
                yield cases[done], outcome
                done += 1


def alone(case: Case, seed: int, root: Path) -> str | Finding:
    """The outcome of a case in a process that has had no other."""
    return next(_in_a_process([case], seed, root / "intact", root / "alone"))


def _in_a_process(cases: Sequence[Case], seed: int, originals: Path, sandbox: Path) -> Iterator[str | Finding]:
    """The outcomes until the process ends; the last is 'crash' or 'hang' where it did so in the middle of a case."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, cases, seed, originals, sandbox), daemon=True)
    process.start()
    there.close()
    try:
        if refused := here.recv():
            raise RuntimeError(f"intact files have no result: {'; '.join(refused)}")
        for _ in cases:
            if not here.poll(PATIENCE):
                yield {"fault": "hang", "error": f"no answer within {PATIENCE:.0f} s", "where": ""}
                return
            yield here.recv()
    except EOFError:
        process.join(PATIENCE)
        yield {"fault": "crash", "error": f"the process ended with status {process.exitcode}", "where": ""}
    finally:
        process.kill()
        process.join()


def _work(connection: Connection, cases: Sequence[Case], seed: int, originals: Path, sandbox: Path) -> None:
    shutil.rmtree(sandbox, ignore_errors=True)
    shutil.copytree(originals, sandbox)
    os.environ["CYCLEMLP_CACHE"] = str(sandbox / "cache")
    # What is imported late needs no judging.
    connection.send([each for name in {name for name, _ in cases} for each in _refused_intact(name, sandbox / name)])
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _too_slow)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # C libraries write there, too
    sys.addaudithook(_Guard(sandbox))
    for name, number in cases:
        folder = sandbox / name
        target, content = damaged(SUBJECTS[name], folder, number, seed)
        intact = target.read_bytes()
        target.write_bytes(content)
        with _limited():
            outcome = judge(SUBJECTS[name], folder, target)
        target.write_bytes(intact)
        connection.send(outcome)
    connection.close()
    os._exit(0)


def _refused_intact(name: str, folder: Path) -> list[str]:
    targets = sorted(path for path in folder.glob(SUBJECTS[name].targets) if path.is_file())
    outcomes = [(target.name, judge(SUBJECTS[name], folder, target)) for target in targets if target.suffix != ".gif"]
    return [f"{name}: {target}: {outcome}" for target, outcome in outcomes if outcome != "results"]


@contextmanager
def _limited() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        gc.collect(0)


def _too_slow(_signal: int, _frame: FrameType | None) -> None:
    raise TooSlowError(f"more than {SECONDS} s of processor time")


class _Guard:
    """Raises ForbiddenError at what no file may cause; as an audit hook it stays for the life of the process."""

    def __init__(self, sandbox: Path) -> None:
        self._sandbox = f"{sandbox}{os.sep}"

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _PROGRAMS or event in _SOCKETS:
            raise ForbiddenError(f"{event} {arguments!r}"[:200])
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if (writes or event in _CHANGES) and not self._allows(arguments[0]):
            raise ForbiddenError(f"{event} {arguments!r}"[:200])

    def _allows(self, place: object) -> bool:
        if not isinstance(place, str | bytes | os.PathLike):
            return True  # a descriptor that is open already
        path = os.path.realpath(os.fsdecode(place))
        return path == os.devnull or path.startswith(self._sandbox)


def _not_a_line(message: str) -> str:
    if len(message.splitlines()) != 1:
        return "no line" if not message else "several lines"
    return "a long line" if len(message) > MAX_MESSAGE else ""


def _described(error: BaseException) -> Finding:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/cyclemlp/" in frame.filename]
    where = f"{frames[-1].filename.rpartition('/cyclemlp/')[2]}:{frames[-1].name}" if frames else ""
    return {"error": f"{type(error).__name__}: {error}"[:200], "where": where}


def _distinct(findings: Sequence[Finding]) -> list[Finding]:
    """The first of each kind, with the number of all."""
    keys = [tuple(each[key] for key in ("subject", "fault", "where")) for each in findings]
    counts = Counter(keys)
    first = dict(zip(reversed(keys), reversed(findings), strict=True))
    return [{**each, "times": counts[key]} for key, each in sorted(first.items(), key=lambda item: item[0])]


def _keep(corpus: Path, name: str, number: int, seed: int) -> None:
    """Write the damaged file as SUBJECT-CHECKSUM-PLACE, in which PLACE has __ for the slashes of its path."""
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        SUBJECTS[name].write(Path(folder))
        target, content = damaged(SUBJECTS[name], Path(folder), number, seed)
        place = target.relative_to(folder).as_posix().replace("/", "__")
        (corpus / f"{name}-{zlib.crc32(content):08x}-{place}").write_bytes(content)


def _table(record: JsonObject) -> str:
    rows = [("", "results", "refusals", "faults")]
    rows += [(name, *(str(count) for count in counts.values())) for name, counts in record["subjects"].items()]
    lines = [f"{record['cases']} damaged files, seed {record['seed']}, {record['seconds']} s", *aligned(rows)]
    lines += [f"{f['times']} x {f['subject']}: {f['fault']}: {f['where']}: {f['error']}" for f in record["faults"]]
    return "\n".join(lines) + "\n"
