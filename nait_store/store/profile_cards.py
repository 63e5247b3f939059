"""The quality card of a profile with its samples: read, measured anew, and written as a page with pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nait_store.errors import NaitStoreError, NotFoundError

if TYPE_CHECKING:
    from nait_store.registry.cards.page import CardSample, ProfileCard
    from nait_store.registry.in_domain import ChosenRows
    from nait_store.registry.profiles import Profile
    from nait_store.schemas.quality_card import QualityCard, RankedSample
    from nait_store.store.facade import Store

_TEXT_CHARACTERS = 160


@dataclass(frozen=True)
class WrittenCard:
    """A card that was written as a page.

    Attributes
    ----------
    card
        The card.
    urls
        Of the page, then of its pictures.
    """

    card: ProfileCard
    urls: tuple[str, ...]


def stored_card(store: Store, profile: Profile) -> ProfileCard:
    """What the build measured, with the samples that it names where the store still has them."""
    from nait_store.registry.cards.page import ProfileCard

    card = ProfileCard(profile.reference, profile.record, profile.quality_card())
    return card if card.quality is None else _with_samples(store, profile, card, card.quality)


def measured_card(store: Store, profile: Profile, against: str | None) -> ProfileCard:
    """Measure a card now; nothing is kept. See :meth:`~nait_store.store.profiles.Profiles.card`."""
    from nait_store.registry.cards.measuring import MeasuredProfile, measure_card
    from nait_store.registry.cards.page import ProfileCard
    from nait_store.registry.cards.score_sums import check_compared, choose_compared
    from nait_store.registry.in_domain import choose_rows
    from nait_store.registry.payload import ProfileArrays
    from nait_store.store.in_domain_rows import in_domain_rows

    record = profile.record
    source, chosen = in_domain_rows(store, profile)
    compared_set = None if against is None else store.sets.open(against)
    if compared_set is not None:
        check_compared(source, compared_set, record.recipe, record.layers)
    background, contrast = None, None
    if record.background is not None:
        mean_is_kept = record.recipe.feature is record.recipe.profile_feature
        try:
            background = store.sets.open(f"{record.background.set_name}@{record.background.version}")
        except NotFoundError:  # a profile outlives its background, and most often has what it needs of it
            if not mean_is_kept:
                raise
        else:
            contrast = None if mean_is_kept else choose_rows(background)
    quality = measure_card(
        source,
        chosen,
        MeasuredProfile(record.recipe, record.layers, ProfileArrays(profile.directions(), profile.offset()), contrast),
        choose_compared(chosen, compared_set, background),
        store.progress,
    )
    return _with_samples(store, profile, ProfileCard(profile.reference, record, quality), quality)


def write_page(card: ProfileCard, folder: str, *, pictures: bool, overwrite: bool) -> WrittenCard:
    """Write ``CARD.md`` and its pictures; see :meth:`~nait_store.store.profiles.Profiles.write_card`."""
    from nait_store.registry.cards.page import PAGE_FILE
    from nait_store.registry.cards.pictures import draw_pictures
    from nait_store.selection.destination import Destination

    drawn = draw_pictures(card) if pictures else ()
    page = card.markdown([(picture.file, picture.description) for picture in drawn]).encode()
    files = [(picture.file, picture.png) for picture in drawn] + [
        (PAGE_FILE, page)
    ]  # the page last: it shows the others
    base = folder.rstrip("/") or "/"
    # All are looked at before one is written.
    destinations = [Destination(f"{base}/{name}", overwrite=overwrite) for name, _ in files]
    for destination, (_, data) in zip(destinations, files, strict=True):
        with destination.open() as handle:
            handle.write(data)
    return WrittenCard(card, tuple(destination.url for destination in (destinations[-1], *destinations[:-1])))


def _with_samples(store: Store, profile: Profile, card: ProfileCard, quality: QualityCard) -> ProfileCard:
    from nait_store.store.in_domain_rows import in_domain_rows

    if not quality.top:
        return card
    try:
        _, chosen = in_domain_rows(store, profile)
    except NaitStoreError as error:
        return replace(card, unknown=error.what)
    ids = sorted(chosen.sample_ids())
    texts = dict(_texts(chosen, {ids[one.position] for one in (*quality.top, *quality.bottom)}))

    def shown(ranked: Sequence[RankedSample]) -> tuple[CardSample, ...]:
        from nait_store.registry.cards.page import CardSample

        return tuple(CardSample(ids[one.position], one.score, texts[ids[one.position]]) for one in ranked)

    return replace(card, top=shown(quality.top), bottom=shown(quality.bottom))


def _texts(chosen: ChosenRows, wanted: set[str]) -> Iterator[tuple[str, str]]:
    """Sample ids with the beginnings of their texts."""
    from nait_store.schemas.samples import beginning

    for segment, rows in chosen.rows:
        ids = segment.samples(["sample_id"]).column("sample_id").take(rows).to_pylist()
        found = [(sample_id, row) for sample_id, row in zip(ids, rows.tolist(), strict=True) if sample_id in wanted]
        if found:
            records = segment.samples(["record"]).column("record").take([row for _, row in found]).to_pylist()
            for (sample_id, _), record in zip(found, records, strict=True):
                yield sample_id, beginning(json.loads(record), _TEXT_CHARACTERS)
