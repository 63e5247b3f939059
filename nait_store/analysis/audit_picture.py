"""Scores of a set by source and by length, drawn by matplotlib (the extra ``plots``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nait_store.errors import InvalidInputError
from nait_store.pictures import BLUE, default_style, literally, picture_bytes, require_matplotlib, tidy

if TYPE_CHECKING:
    from nait_store.analysis.audit import SetAudit
    from nait_store.analysis.audited_scores import ProfileScores


def draw_audit(audit: SetAudit, form: str = "png") -> bytes:
    """Draw for each profile a histogram of the scores by source, and the mean score by length.

    Parameters
    ----------
    audit
        What was found.
    form
        ``png``, ``svg`` or ``pdf``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    InvalidInputError
        There are no scores that differ.
    """
    require_matplotlib("histograms need", "leave the picture out: the numbers are in the table")
    profiles = [scores for scores in audit.profiles if scores.edges]
    if not profiles:
        raise InvalidInputError(
            f"there is nothing to draw: no profile has scores of {audit.set_ref} that differ",
            next_step="name a profile: --profile NAME",
        )
    with default_style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.2, 3.4 * len(profiles)), layout="constrained")
        figure.suptitle(literally(f"{audit.n_samples:,} samples of {audit.set_ref}"))
        grid = figure.subplots(len(profiles), 2, squeeze=False)
        for scores, row in zip(profiles, grid, strict=True):
            _draw_histogram(row[0], audit, scores)
            _draw_lengths(row[1], scores)
        return picture_bytes(figure, form)


def _draw_histogram(axes: Any, audit: SetAudit, scores: ProfileScores) -> None:
    # As shares of each source, or a large one would hide the others.
    for one in scores.sources:
        shares = [100 * count / one.n_samples for count in one.counts]
        axes.stairs(
            shares, scores.edges, label=literally(f"{one.value or '(none)'} ({one.n_samples:,})"), linewidth=1.5
        )
    axes.set(title=literally(scores.profile), xlabel="score", ylabel=literally(f"per cent of each {audit.by}"))
    axes.legend(frameon=False, fontsize="small")
    tidy(axes)


def _draw_lengths(axes: Any, scores: ProfileScores) -> None:
    classes = scores.length.by_length
    axes.plot(
        [one.mean_tokens for one in classes], [one.mean_score for one in classes], color=BLUE, marker="o", markersize=4
    )
    spearman = scores.length.spearman
    title = "by length" if spearman is None else f"by length: ranks correlate {spearman:+.2f}"
    axes.set(title=title, xlabel="tokens, mean of a tenth of the samples", ylabel="mean score")
    tidy(axes)
