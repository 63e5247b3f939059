"""Score curves over ratios, drawn by matplotlib (the extra ``plots``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nait_store.pictures import BLUE, GREY, ORANGE, default_style, literally, picture_bytes, require_matplotlib, tidy

if TYPE_CHECKING:
    from nait_store.analysis.ratio import RatioCurve, RatioReport


def draw_ratios(report: RatioReport, form: str = "png") -> bytes:
    """Draw of each curve the scores, the share of the tokens and of the targets, and the sources.

    Parameters
    ----------
    report
        What was found.
    form
        ``png``, ``svg`` or ``pdf``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    require_matplotlib("curves need", "leave the picture out: the numbers are in the table")
    with default_style():
        from matplotlib.figure import Figure

        n_columns = 3 if len(report.sources) > 1 else 2
        figure = Figure(figsize=(4.6 * n_columns, 3.4 * len(report.curves)), layout="constrained")
        where = "" if report.where is None else f" where {report.where}"
        figure.suptitle(literally(f"{report.n_candidates:,} candidates of {report.set_ref}{where}"), wrap=True)
        grid = figure.subplots(len(report.curves), n_columns, squeeze=False)
        for curve, row in zip(report.curves, grid, strict=True):
            _draw_scores(row[0], curve)
            _draw_shares(row[1], curve)
            if n_columns == 3:
                _draw_sources(row[2], report, curve)
        return picture_bytes(figure, form)


def _draw_scores(axes: Any, curve: RatioCurve) -> None:
    percents = [point.percent for point in curve.points]
    axes.plot(percents, [point.mean_score for point in curve.points], color=GREY, label="mean")
    axes.plot(percents, [point.threshold for point in curve.points], color=BLUE, label="lowest")
    if curve.at_knee is not None:
        label = "knee" if curve.knee is not None and curve.knee.is_clear else "knee (hardly)"
        axes.axvline(curve.at_knee.percent, color=ORANGE, linewidth=1, linestyle="--", label=label)
    axes.set(title=literally(curve.ranked_by), ylabel="score")
    _finish(axes)


def _draw_shares(axes: Any, curve: RatioCurve) -> None:
    percents = [point.percent for point in curve.points]
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1, linestyle=":")
    axes.plot(percents, [100 * point.token_share for point in curve.points], color=BLUE, label="of all tokens")
    if curve.n_targets:
        found = [100 * (point.recall or 0.0) for point in curve.points]
        axes.plot(percents, found, color=ORANGE, label=f"of {curve.n_targets:,} targets")
    axes.set(title="their part of the whole set", ylabel="per cent")
    _finish(axes)


def _draw_sources(axes: Any, report: RatioReport, curve: RatioCurve) -> None:
    percents = [point.percent for point in curve.points]
    names = list(report.sources)
    shares = [[100 * point.sources[name] / point.n_samples for point in curve.points] for name in names]
    labels = [literally(name or "(none)") for name in names]
    if report.n_other_sources:
        shares.append([100 - sum(column) for column in zip(*shares, strict=True)])
        labels.append("others")
    axes.stackplot(percents, shares, labels=labels, alpha=0.85)
    axes.set(title=literally(report.by), ylabel="per cent of them", ylim=(0, 100))
    _finish(axes)


def _finish(axes: Any) -> None:
    axes.set(xlabel="best per cent", xlim=(0, 100))
    axes.legend(frameon=False, fontsize="small")
    tidy(axes)
