"""`python -m toy_task` runs the command lines that it reads from standard input, with one more task.

One process for all of them, since torch takes seconds to import. A form feed ends the output of each; the first that
fails ends the process, with its status.
"""

import json
import sys

from command_line import command

from cyclemlp.tasks.registry import register_task

register_task("pixel-regression", "toy_task.task:PixelRegressionTask")

if __name__ == "__main__":
    for line in sys.stdin:
        status = command(*json.loads(line))
        if status:
            sys.exit(status)
        sys.stdout.write("\f")
