"""Console entry point, outside the package so that `cyclemlp --help` answers before torch is imported.

`import cyclemlp` registers the models with timm, which imports torch (about five seconds); while this module is
loaded the package leaves that to the commands that need it.
"""


def main() -> None:
    """Run the command line."""
    from cyclemlp.cli import main as run

    run()
