"""`python -m benchmarks NAME --out results/NAME.json`: one module per benchmark."""

if __name__ in ("__main__", "__mp_main__"):
    import _cyclemlp_launcher  # noqa: F401  with it, processes that run exported files do not load torch

from cyclopts import App, Parameter

from cyclemlp.cli import run

app = App(
    name="python -m benchmarks",
    help="Measure what the tables and figures of docs/ show: interleaved rounds, medians and spread, threads pinned.",
    version_flags=(),
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
)
for _name, _target in {
    "operators": "benchmarks.operators:operators",
    "active": "benchmarks.active_mixing:active",
    "train": "benchmarks.training_steps:train",
    "heads": "benchmarks.heads:heads",
    "scale": "benchmarks.scale:scale",
    "loader": "benchmarks.loading:loader",
    "resolution": "benchmarks.resolution:resolution",
    "receptive-field": "benchmarks.receptive_field:receptive_field",
    "robustness": "benchmarks.robustness:robustness",
    "compare": "benchmarks.compare:compare",
    "fuzz": "benchmarks.fuzz:fuzz",
    "faults": "benchmarks.faults:faults",
}.items():
    app.command(_target, name=_name)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark that `arguments` (default: those of the process) name."""
    run(app, arguments)


if __name__ == "__main__":
    main()
