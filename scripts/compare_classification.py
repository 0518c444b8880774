"""Compare finished classification runs with each other and with a baseline that sees only colours, as one result file.

    python scripts/compare_classification.py DATA RUN... --out results/classification.json

The baseline is a linear model (multinomial logistic regression) on colour histograms, 16 bins a channel over the whole
image, fitted to the training split and scored on the validation split that the runs were scored on.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from compare_runs import describe, environment_of
from torch import Tensor, nn

from cyclemlp.data.datasets import ClassifiedDataset, ClassifiedSplit
from cyclemlp.data.formats.registry import find_dataset
from cyclemlp.data.images import read_image
from cyclemlp.files import write_json
from cyclemlp.tasks.classification.metrics import LabelCounts

BINS = 16
PENALTY = 1e-3


def main() -> None:
    """Compare the runs named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of class folders that the runs were trained on")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of `cyclemlp train classification`")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    options = parser.parse_args()
    dataset = find_dataset(options.data, ClassifiedDataset)
    train, val = dataset.splits["train"], dataset.splits["val"]
    runs = [describe(run) for run in options.runs]
    record = {
        "data": options.data.name,
        "classes": list(dataset.classes),
        "images": {"train": len(train.images), "val": len(val.images)},
        "baseline": {"model": "linear model on colour histograms", "metrics": baseline(train, val, dataset.classes)},
        "runs": runs,
        "environment": environment_of(_command(options), runs),
    }
    write_json(options.out, record)
    sys.stdout.write(f"{options.out}\n")


def baseline(train: ClassifiedSplit, val: ClassifiedSplit, classes: tuple[str, ...]) -> dict[str, Any]:
    """Scores of the linear model on `val`."""
    seen, held_out = histograms(train), histograms(val)
    mean, std = seen.mean(0), seen.std(0).clamp_min(1e-6)
    linear = fit_linear((seen - mean) / std, torch.tensor(train.labels), len(classes))
    counts = LabelCounts(len(classes))
    with torch.no_grad():
        counts.update(linear((held_out - mean) / std), torch.tensor(val.labels))
    return dict(counts.metrics(classes))


def histograms(split: ClassifiedSplit) -> Tensor:
    """Shares of the pixels in each bin, (images, 3 * BINS), float32."""
    rows = []
    for path in split.images:
        binned = np.asarray(read_image(path)).reshape(-1, 3).astype(np.int64) * BINS // 256
        rows.append(np.concatenate([np.bincount(channel, minlength=BINS) / len(channel) for channel in binned.T]))
    return torch.from_numpy(np.stack(rows)).float()


def fit_linear(features: Tensor, labels: Tensor, num_classes: int) -> nn.Linear:
    """Logistic regression, weakly penalised, to convergence."""
    linear = nn.Linear(features.shape[1], num_classes)
    optimiser = torch.optim.LBFGS(linear.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(linear(features), labels) + PENALTY * linear.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return linear


def _command(options: argparse.Namespace) -> str:
    runs = [run.name for run in options.runs]
    return shlex.join(["python", "scripts/compare_classification.py", options.data.name, *runs])


if __name__ == "__main__":
    main()
