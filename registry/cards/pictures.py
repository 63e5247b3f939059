"""Pictures of a quality card, drawn by matplotlib (the extra ``plots``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nait_store.pictures import BLUE, GREY, ORANGE, default_style, picture_bytes, require_matplotlib, tidy
from nait_store.registry.cards.findings import NEAR
from nait_store.registry.quality import (
    SMALL_AUC,
    SMALL_EXPLAINED_VARIANCE,
    SMALL_HALVES_COSINE,
    SMALL_SIGN_MARGIN,
)
from nait_store.schemas.profile import LayerStatistics
from nait_store.schemas.quality_card import QualityCard

if TYPE_CHECKING:
    from nait_store.registry.cards.page import ProfileCard

_Panel = tuple[str, list[int], list[float], float]


@dataclass(frozen=True)
class Picture:
    """A picture of a card.

    Attributes
    ----------
    file
        Name to give it.
    description
        What it shows, for those who do not see it.
    png
        Its bytes: the same card gives the same picture.
    """

    file: str
    description: str
    png: bytes


def draw_pictures(card: ProfileCard) -> tuple[Picture, ...]:
    """Draw what a card measured.

    Parameters
    ----------
    card
        The card; without measurements only the statistics of the layers are drawn.

    Returns
    -------
    tuple of Picture
        The layers, and the learning curve where there is one.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    require_matplotlib("the pictures of a card need", "leave them out with --no-pictures")
    with default_style():
        return tuple(_pictures(card))


def _pictures(card: ProfileCard) -> Iterator[Picture]:
    from matplotlib.figure import Figure

    panels = _panels(card.record.statistics, card.quality)
    if panels:
        figure = Figure(figsize=(9.0, 2.8 * _n_rows(panels)), layout="constrained")
        _draw_layers(figure, panels)
        described = ", ".join(title for title, *_ in panels)
        description = f"Per layer: {described}; below the dashed line is a warning"
        yield Picture("layers.png", description, picture_bytes(figure))
    if card.quality is not None and len(card.quality.learning_curve) > 1:
        figure = Figure(figsize=(6.0, 3.5), layout="constrained")
        _draw_curve(figure.subplots(), card.quality)
        description = "Cosine to the profile, and between two draws, by number of samples"
        yield Picture("learning-curve.png", description, picture_bytes(figure))


def _n_rows(panels: Sequence[_Panel]) -> int:
    return (len(panels) + 1) // 2


def _draw_layers(figure: Any, panels: Sequence[_Panel]) -> None:
    for place, (title, layers, values, limit) in enumerate(panels, 1):
        axes = figure.add_subplot(_n_rows(panels), 2, place)
        axes.bar(layers, values, color=BLUE)
        axes.axhline(limit, color=ORANGE, linewidth=1, linestyle="--")
        axes.set(title=title, xlabel="layer")
        tidy(axes)


def _panels(statistics: Sequence[LayerStatistics], card: QualityCard | None) -> list[_Panel]:
    """Title, layers, values and the limit of a warning, of everything that is known."""
    columns: list[tuple[str, dict[int, float | None], float]] = [
        ("explained variance", {s.layer: s.explained_variance_ratio for s in statistics}, SMALL_EXPLAINED_VARIANCE),
        ("sign margin", {s.layer: s.sign_margin for s in statistics}, SMALL_SIGN_MARGIN),
    ]
    if card is not None:
        columns += [
            ("cosine of two halves", {q.layer: q.halves_cosine for q in card.layers}, SMALL_HALVES_COSINE),
            ("area under the curve", {q.layer: q.auc for q in card.layers}, SMALL_AUC),
        ]
    panels = []
    for title, by_layer, limit in columns:
        known = {layer: value for layer, value in by_layer.items() if value is not None}
        if known:
            panels.append((title, list(known), list(known.values()), limit))
    return panels


def _draw_curve(axes: Any, card: QualityCard) -> None:
    points = card.learning_curve
    axes.plot(
        [point.n_samples for point in points],
        [point.profile_cosine for point in points],
        color=BLUE, marker="o", label="to the profile",
    )  # fmt: skip
    between = [(point.n_samples, point.draws_cosine) for point in points if point.draws_cosine is not None]
    axes.plot(*zip(*between, strict=True), color=GREY, marker="s", label="between two draws")
    axes.axhline(NEAR, color=ORANGE, linewidth=1, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xticks([point.n_samples for point in points], [f"{point.n_samples:,}" for point in points])
    axes.minorticks_off()
    axes.set(title="How many samples it takes", xlabel="in-domain samples", ylabel="cosine, mean over layers")
    axes.legend(frameon=False)
    tidy(axes)
