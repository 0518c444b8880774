"""`cyclemlp bench`: how fast it is on this machine, against what else there is. One module per subject."""

from cyclopts import App

app = App(name="bench", help="Measure speed on this machine: interleaved rounds, medians and spread, threads pinned.")
for _subject, _target in {
    "op": "cyclemlp.cli.bench_op:op",
    "model": "cyclemlp.cli.bench_models:model",
    "compare": "cyclemlp.cli.bench_models:compare",
    "robustness": "cyclemlp.cli.bench_robustness:robustness",
    "receptive-field": "cyclemlp.cli.bench_receptive_field:receptive_field",
    "resolution": "cyclemlp.cli.bench_resolution:resolution",
    "train": "cyclemlp.cli.bench_train:train",
    "scale": "cyclemlp.cli.bench_scale:scale",
    "loader": "cyclemlp.cli.bench_loader:loader",
}.items():
    app.command(_target, name=_subject)
