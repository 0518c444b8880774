"""`python -m cyclemlp` is the command `cyclemlp`."""

from cyclemlp.cli import main

main()
