"""The command line: one module per verb, imported when that verb is used; torch only inside the handlers.

Exit status: 0 done, 2 the input is wrong (one line on standard error), 1 a fault of ours (a traceback).
"""

import errno
import logging
import os
import signal
import sys
from importlib.metadata import version
from typing import NoReturn

import cyclopts
from cyclopts import App, CycloptsError

from cyclemlp.errors import UserError

app = App(
    name="cyclemlp",
    help="Vision backbones made only of MLPs: train, evaluate, predict, export, at any image size.",
    version=lambda: version("cyclemlp"),
    help_format="plaintext",
    default_parameter=cyclopts.Parameter(negative=()),
)
for _verb, _target in {
    "demo": "cyclemlp.cli.demo:demo",
    "models": "cyclemlp.cli.models:models",
    "data": "cyclemlp.cli.data:data",
    "train": "cyclemlp.cli.train:app",
    "eval": "cyclemlp.cli.eval:evaluate",
    "predict": "cyclemlp.cli.predict:predict",
    "bench": "cyclemlp.cli.bench:app",
    "convert": "cyclemlp.cli.convert:convert",
    "export": "cyclemlp.cli.export:export",
}.items():
    app.command(_target, name=_verb)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line on `arguments` (default: those of the process)."""
    run(app, arguments)


def run(program: App, arguments: list[str] | None = None) -> None:
    """Run `program`; errors caused by user input become one line on standard error and exit status 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        program(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        from cyclemlp.tasks.build_config import in_one_line

        _refuse(f"{in_one_line(error)} See --help.")
    except UserError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        print("cyclemlp: stopped by Ctrl-C", file=sys.stderr)  # noqa: T201
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        where = f" at {error.filename}" if error.filename else ""
        _refuse(f"cannot write{where}: {error.strerror}. Free some space or choose another --out")


def _refuse(message: str) -> NoReturn:
    print(f"cyclemlp: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
