"""Tables of a study: losses, and how well scores find the target's own source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.report import Report
from benchmarks.training.choices import BEST, CHOICES, RANDOM
from benchmarks.training.losses import Interval, Loss, Losses, difference

BASE = "the base model"


def add_loss_tables(report: Report, losses: Losses) -> None:
    """A table for each target, pool and capability that was asked for."""
    top = str(losses.settings["top"])
    for (target, pool, asked), found in losses.groups().items():
        about = "" if asked == target else f", asked about {asked}"
        title = f"Target {target}, {pool}{about}: held-out loss after training on {top} of the candidates"
        add_loss_table(report, title, found)


def add_loss_table(report: Report, title: str, found: Mapping[str, Mapping[int, Loss]]) -> None:
    """One of them, of what was chosen → seed → loss."""
    rows = []
    for name in (BASE, *(choice.name for choice in CHOICES)):
        if name not in found:
            continue
        losses = list(found[name].values())
        cells = [name, str(len(losses)), str(Interval.of(np.array([one.nats_per_token for one in losses])))]
        for reference in (RANDOM, BEST):
            interval = None if name == reference else difference(found[name], found.get(reference, {}))
            cells.append("" if interval is None else interval.verdict)
        cells.append(f"{np.mean([one.n_of_asked / max(1, one.n_records) for one in losses]):.0%}")
        cells.append(f"{np.mean([one.n_answer_tokens for one in losses]):,.0f}")
        rows.append(cells)
    report.table(
        title,
        ["chosen", "seeds", "loss", "minus random", f"minus {BEST}", "of its source", "tokens learnt"],
        rows,
        "Nats per token, lower is better; means and 95 % intervals over seeds, of differences over pairs of a seed.",
    )


def add_auc_table(report: Report, found: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """ROC-AUC of the target's own source: target → ranked by → a value a seed; the first minus the others."""
    targets = list(found)
    first, *_ = found[targets[0]]
    rows = []
    for name in found[targets[0]]:
        values = {target: np.array(found[target][name]) for target in targets}
        differences = [np.array(found[target][first]) - values[target] for target in targets]
        cells = [str(Interval.of(values[target])) for target in targets]
        cells += ["" if name == first else str(Interval.of(one)) for one in differences]
        rows.append([name, *cells])
    report.table(
        "ROC-AUC of the target's own source among the candidates",
        ["ranked by", *targets, *(f"{first} minus this, {target}" for target in targets)],
        rows,
        "Means and 95 % intervals over seeds.",
    )
