"""What a score curve over ratios says, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from nait_store.analysis.findings import Finding
from nait_store.analysis.ratio import RatioCurve, RatioPoint, RatioReport

USUAL_PERCENT = 10
"""The ratio that the paper recommends, and the default of ``select``: what the sentences are about."""
LARGE_LENGTH_FACTOR = 1.5
"""From here on a selection by count is half as large, or twice as small, again in tokens."""
LARGE_SHARE = 0.9
"""A source that gives nine tenths of a selection is all of it but for stragglers."""


def ratio_findings(report: RatioReport) -> tuple[Finding, ...]:
    """Judge every curve of a report: its knee, length, sources, and whether the targets come first."""
    return tuple(finding for curve in report.curves for finding in _of_curve(report, curve))


def _of_curve(report: RatioReport, curve: RatioCurve) -> Iterator[Finding]:
    yield _knee(curve)
    best = curve.at(USUAL_PERCENT)
    yield _length(report, curve, best)
    yield _sources(report, curve, best)
    yield _targets(curve, best)


def _knee(curve: RatioCurve) -> Finding:
    other = "the curve names no ratio: train on two or three of them and compare, e.g. 10%, 30% and 80%"
    if curve.knee is None:
        return Finding.judged("knee", curve.ranked_by, curve.no_knee, warn=True, next_step=other)
    return Finding.judged("knee", curve.ranked_by, curve.knee.in_words, warn=not curve.knee.is_clear, next_step=other)


def _length(report: RatioReport, curve: RatioCurve, best: RatioPoint) -> Finding:
    mean = report.n_tokens / report.n_candidates
    factor = best.mean_tokens / mean if mean else 1.0
    text = (
        f"samples of the best {USUAL_PERCENT} % have {best.mean_tokens:,.1f} tokens on average, those of the whole set "
        f"{mean:,.1f}"
    )
    warn = not 1 / LARGE_LENGTH_FACTOR < factor < LARGE_LENGTH_FACTOR
    kind = "long" if factor > 1 else "short"
    return Finding.judged(
        "length",
        curve.ranked_by,
        f"{text}: {kind} ones come first" if warn else text,
        warn=warn,
        next_step="say how much in tokens (--budget-tokens), and train on --strategy length-matched as a control",
    )


def _sources(report: RatioReport, curve: RatioCurve, best: RatioPoint) -> Finding:
    if len(report.sources) < 2:
        text = f"all candidates have one value of {report.by}"
        return Finding.skipped("sources", curve.ranked_by, text, "name another column: --by COLUMN")
    name = max(best.sources, key=best.sources.__getitem__)
    share, before = best.sources[name] / best.n_samples, report.sources[name] / report.n_candidates
    text = (
        f"{report.by} {name or '(none)'} gives {100 * share:.3g} % of the best {USUAL_PERCENT} %, "
        f"and {100 * before:.3g} % of the whole set"
    )
    return Finding.judged(
        "sources",
        curve.ranked_by,
        text,
        warn=share >= LARGE_SHARE > before,
        next_step="if it is not that source that you want, limit it: --quota, --per, or --where",
    )


def _targets(curve: RatioCurve, best: RatioPoint) -> Finding:
    if best.recall is None:
        return Finding.skipped("targets", curve.ranked_by, curve.targets, "name some of the candidates: --targets SQL")
    half, most = (_found_by(curve, share) for share in (0.5, 0.9))
    text = (
        f"{100 * best.recall:.3g} % of the {curve.n_targets:,} {curve.targets} are among the best {USUAL_PERCENT} %; "
        f"half of them are found at {half} %, nine tenths at {most} %"
    )
    return Finding.judged(
        "targets",
        curve.ranked_by,
        text,
        warn=half >= 50,  # where chance finds half of them
        next_step="the order does not bring them first: look at the profile's card, and try another recipe",
    )


def _found_by(curve: RatioCurve, share: float) -> int:
    """The lowest ratio whose samples hold this part of the targets."""
    return next(int(point.percent) for point in curve.points if point.recall is not None and point.recall >= share)
