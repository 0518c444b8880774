"""Whether a finished run has learnt something: said at its end and in the report, so that a short try is no success."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

VERY_FEW_STEPS = 100
STILL_FALLING = 0.15
"""Share by which the mean loss of the last fifth of a run lies below that of the fifth before, in a run cut short."""
NO_BETTER = 0.01
"""Margin over the best constant answer within which a network counts as no better."""
_FIFTH = 5


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    steps: int
    passes: float
    """Over the training images."""
    losses: Sequence[float]
    """The recorded ones, in order."""
    score: float | None
    """The main score on the validation images."""
    constant: float | None
    """That of the best answer that is the same for every image; None where there is none."""


def verdict(outcome: Outcome, score_name: str) -> list[str]:
    """Reasons to distrust the network as sentences without a full stop, none for a run that looks whole."""
    reasons = []
    score, constant = outcome.score, outcome.constant
    if score is not None and constant is not None and score <= constant + NO_BETTER:
        reasons.append(
            f"{score_name} is {score:.4f}, and {constant:.4f} needs no network: the same answer for every image"
        )
    if outcome.steps < VERY_FEW_STEPS:
        reasons.append(f"it has taken only {outcome.steps} steps")
    if outcome.passes < 1:
        reasons.append(f"it has seen only {100 * outcome.passes:.0f} % of the training images")
    if (fall := _fall(outcome.losses)) is not None and fall > STILL_FALLING:
        reasons.append(f"its loss was still falling: by {100 * fall:.0f} % in the last fifth of the run")
    return reasons


def in_words(reasons: Sequence[str]) -> str:
    """The reasons as one sentence with advice, empty without reasons."""
    return f"not trained to the end: {'; '.join(reasons)}. More --max-time or steps help, or --fit" if reasons else ""


def losses_of(rows: Sequence[Mapping[str, str]]) -> list[float]:
    """The losses in rows of metrics.csv."""
    return [float(row["loss"]) for row in rows if row.get("loss")]


def _fall(losses: Sequence[float]) -> float | None:
    """By which share the last fifth lies below the fifth before, None where there are too few losses."""
    part = len(losses) // _FIFTH
    if part < 2:
        return None
    before, last = fmean(losses[-2 * part : -part]), fmean(losses[-part:])
    return (before - last) / before if before > 0 else None
