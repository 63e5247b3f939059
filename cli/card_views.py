"""How quality cards look to people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nait_store.cli.console import Console, as_json
from nait_store.cli.tables import Table, pairs

if TYPE_CHECKING:
    from nait_store.registry.cards.page import CardSample, ProfileCard
    from nait_store.store.profile_cards import WrittenCard


def card_value(card: ProfileCard) -> dict[str, Any]:
    """JSON form: what was measured, and the samples at both ends."""
    return {"quality": as_json(card.quality), "top": as_json(card.top), "bottom": as_json(card.bottom)}


def card_details(card: ProfileCard, console: Console) -> Iterator[str | Table]:
    """What was measured, as sentences, by layer, and with the samples at both ends."""
    from nait_store.registry.cards.findings import findings

    quality = card.quality
    if card.record.source is None:  # nothing can be said of samples
        return
    yield ""
    if quality is None:
        yield "nothing was measured when it was built"
        if not console.quiet:
            yield console.hint(f"profile card {card.reference}")
    else:
        yield pairs(list(findings(quality)))
    yield ""
    yield _layers(card)
    for title, samples in (("highest", card.top), ("lowest", card.bottom)):
        if samples:
            yield ""
            yield _samples(f"in-domain samples with the {title} scores", samples)
    if card.unknown:
        yield ""
        yield f"in-domain samples are not shown: {card.unknown}"


def written_card(written: WrittenCard) -> list[str]:
    """Where a card went."""
    return [f"written: {url}" for url in written.urls]


def not_measured(reference: str, against: str) -> str:
    """Say that a build which was there already has measured nothing now."""
    return (
        f"{reference} was there already, so nothing was measured against {against}; "
        f"'nait-store profile card {reference} --against {against}' does"
    )


def _layers(card: ProfileCard) -> Table:
    measured = {} if card.quality is None else {layer.layer: layer for layer in card.quality.layers}
    rows = []
    for s in card.record.statistics:
        layer = measured.get(s.layer)
        halves, auc = (None, None) if layer is None else (layer.halves_cosine, layer.auc)
        rows.append((s.layer, s.explained_variance_ratio, s.eigenvalue_gap, s.sign_margin, halves, auc))
    columns = (
        "layer", "explained variance", "eigenvalue gap", "sign margin", "halves agree", "area under the curve",
    )  # fmt: skip
    # What was measured of no layer has no column; the statistics always have theirs.
    shown = [i for i in range(len(columns)) if i < 4 or any(row[i] is not None for row in rows)]
    return Table([columns[i] for i in shown], [[row[i] for i in shown] for row in rows])


def _samples(caption: str, samples: Sequence[CardSample]) -> Table:
    return Table(("score", "sample_id", "text"), [(s.score, s.sample_id, s.text) for s in samples], caption)
