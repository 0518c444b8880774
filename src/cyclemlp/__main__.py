"""`python -m cyclemlp` is the command `cyclemlp`."""

from _cyclemlp_launcher import main

main()
