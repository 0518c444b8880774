"""The command line: one module per verb, imported when that verb is used; torch only inside the handlers.

Exit status: 0 done, 2 the input is wrong (one line on standard error), 3 some of many files are wrong and the others
are done, 1 a fault of ours (a traceback).
"""

import errno
import io
import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import cyclopts
from cyclopts import App, CycloptsError, UnknownCommandError

from cyclemlp.errors import UserError, did_you_mean
from cyclemlp.option_checks import refuse_fractions
from cyclemlp.requirements import report, unmet
from cyclemlp.tasks.option_names import own_spellings

_VERBS = {
    "demo": ("demo", "train on satellite images for some minutes and draw the result"),
    "data": ("data", "count the images and classes of a data set and list what is wrong with it"),
    "train": ("app", "train a network on your own data"),
    "eval": ("evaluate", "score a trained network on labelled images"),
    "predict": ("predict", "predict on images and videos"),
    "export": ("export", "write a trained network as a file for ONNX Runtime, OpenVINO or torch"),
    "models": ("models", "list the backbones with parameters and FLOPs"),
    "bench": ("app", "time networks on this machine, in each runtime installed"),
    "convert": ("convert", "convert weight files between the authors' layout and ours"),
}
"""The function or app of each verb, and what --help says of it: its module is imported only when it is used."""
_ABOUT = "Vision backbones made only of MLPs: train, evaluate, predict, export, at any image size."

app = App(
    name="cyclemlp",
    help="\n".join([_ABOUT, "", *(f"  {verb:8} {about}" for verb, (_, about) in _VERBS.items())]),
    version=report,
    help_format="plaintext",
    config=refuse_fractions,
    default_parameter=cyclopts.Parameter(negative=()),
)
for _verb, (_target, _) in _VERBS.items():
    app.command(f"cyclemlp.cli.{_verb}:{_target}", name=_verb, show=False)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line on `arguments` (default: those of the process)."""
    run(app, arguments)


def run(program: App, arguments: list[str] | None = None) -> None:
    """Run `program`; errors caused by user input become one line on standard error and exit status 2."""
    _prepare_streams()
    # Before torch is imported: of a process that has gone the others would print frames of C++.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pyogrio").setLevel(logging.WARNING)  # it counts the records that it writes
    program.suppress_keyboard_interrupt = False  # otherwise it would end without a word
    try:
        given = sys.argv[1:] if arguments is None else arguments
        program(own_spellings(given), exit_on_error=False, print_error=False)
        sys.stdout.flush()  # here, where a closed pipe is caught
    except CycloptsError as error:
        _refuse(_one_line(error))
    except UserError as error:
        _refuse(str(error), error.exit_status)
    except KeyboardInterrupt:
        print("cyclemlp: stopped by Ctrl-C", file=sys.stderr)  # noqa: T201
        sys.exit(128 + signal.SIGINT)
    except (ImportError, AttributeError):
        if not (wrong := unmet()):
            raise  # a fault of ours
        _refuse(f"{'; '.join(wrong)}: pip install --upgrade cyclemlp")
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno is None:
            raise
        _refuse(_of_the_system(error))
    finally:
        _flush_output()


def _of_the_system(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        return f"cannot write{where}: {error.strerror}. Free some space or choose another --out"
    return f"cannot read or write{where}: {error.strerror}. Correct the path, or what may be done there"


def _flush_output() -> None:
    """Here, since the interpreter's own attempt at its end would complain of a reader that has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_streams() -> None:
    """Text that a terminal cannot show is escaped; a stream that is closed swallows what is written."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _refuse(message: str, status: int = 2) -> NoReturn:
    print(f"cyclemlp: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(status)


def _one_line(error: CycloptsError) -> str:
    from cyclemlp.tasks.build_config import in_one_line

    line = in_one_line(error)
    if isinstance(error, UnknownCommandError) and error.unused_tokens and "Did you mean" not in line:
        line += did_you_mean(error.unused_tokens[0], _VERBS)
    return f"{line} See --help."
