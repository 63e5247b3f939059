"""Tables of a study, and of several beside each other: losses, and how well scores find the target's own source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.report import Report
from benchmarks.training.choices import BEST, CHOICES, LOWEST, RANDOM, WITH, WITHOUT
from benchmarks.training.kept import Kept
from benchmarks.training.losses import Interval, Loss, difference

BASE = "the base model"
_NATS = "Nats per token, lower is better; means and 95 % intervals over seeds, of differences over pairs of a seed."
_OTHERS = tuple(choice.name for choice in CHOICES if choice.name not in (RANDOM, BEST, LOWEST))


def add_tables(report: Report, kept: Kept) -> None:
    """A table for each target, pool and capability that was asked for, and one of the rankings."""
    top = str(kept.losses.settings["top"])
    for (target, pool, asked), found in kept.losses.groups().items():
        about = "" if asked == target else f", asked about {asked}"
        title = f"Target {target}, {pool}{about}: held-out loss after training on {top} of the candidates"
        _add_loss_table(report, title, found)
    if aucs := kept.aucs.by_target():
        _add_auc_table(report, aucs)


def _add_loss_table(report: Report, title: str, found: Mapping[str, Mapping[int, Loss]]) -> None:
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
        _NATS,
    )


def _add_auc_table(report: Report, found: Mapping[str, Mapping[str, Mapping[int, float]]]) -> None:
    """ROC-AUC of the target's own source: target → ranked by → seed → value; the default minus the others."""
    rows = []
    for name in next(iter(found.values())):
        cells = [str(Interval.of(np.array(list(rankings[name].values())))) for rankings in found.values()]
        cells += ["" if name == BEST else str(_ahead(rankings, name)) for rankings in found.values()]
        rows.append([name, *cells])
    report.table(
        "ROC-AUC of the target's own source among the candidates",
        ["ranked by", *found, *(f"{BEST} minus this, {target}" for target in found)],
        rows,
        "Means and 95 % intervals over seeds.",
    )


def _ahead(rankings: Mapping[str, Mapping[int, float]], other: str) -> Interval:
    """ROC-AUC of the default recipe minus another's."""
    seeds = rankings[BEST].keys() & rankings[other].keys()
    return Interval.of(np.array([rankings[BEST][seed] - rankings[other][seed] for seed in sorted(seeds)]))


def add_comparisons(report: Report, studies: Mapping[str, Kept]) -> None:
    """Differences of losses and of rankings, a row for each study and target of one capability."""
    for pool in (WITH, WITHOUT):
        rows = []
        for study, kept in studies.items():
            for (target, of_pool, asked), found in kept.losses.groups().items():
                if target == asked and of_pool == pool and BEST in found:
                    rows.append([study, target, *_comparison(found)])
        report.table(
            f"Held-out loss, {pool}",
            [
                "study",
                "target",
                "seeds",
                "top minus random",
                "lowest minus random",
                *(f"{o} minus top" for o in _OTHERS),
            ],
            rows,
            _NATS,
        )
    rankings = [(study, *one) for study, kept in studies.items() for one in kept.aucs.by_target().items()]
    others = [name for name in rankings[0][2] if name != BEST] if rankings else []
    report.table(
        "ROC-AUC of the target's own source among the candidates",
        ["study", "target", BEST, *(f"minus {other}" for other in others)],
        [_auc_comparison(study, target, found, others) for study, target, found in rankings],
        "Means and 95 % intervals over seeds; above 0, the default recipe is ahead.",
    )


def _comparison(found: Mapping[str, Mapping[int, Loss]]) -> list[str]:
    pairs = [(BEST, RANDOM), (LOWEST, RANDOM), *((other, BEST) for other in _OTHERS)]
    differences = [difference(found.get(one, {}), found.get(other, {})) for one, other in pairs]
    return [str(len(found[BEST])), *("" if one is None else one.verdict for one in differences)]


def _auc_comparison(
    study: str, target: str, found: Mapping[str, Mapping[int, float]], others: Sequence[str]
) -> list[str]:
    own = Interval.of(np.array(list(found[BEST].values())))
    return [study, target, str(own), *(_ahead(found, other).signed for other in others)]
