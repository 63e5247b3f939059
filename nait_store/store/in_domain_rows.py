"""The in-domain samples of a profile, chosen again from the set that it was built from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nait_store.errors import NotFoundError

if TYPE_CHECKING:
    from nait_store.activations.set_version import SetVersion
    from nait_store.registry.in_domain import ChosenRows
    from nait_store.registry.profiles import Profile
    from nait_store.store.facade import Store


def in_domain_rows(store: Store, profile: Profile) -> tuple[SetVersion, ChosenRows]:
    """Choose the rows again that a profile was built from, by its recorded choice; in which version they are.

    Raises
    ------
    NotFoundError
        The set version is gone, or the choice gives other samples than it did. Of a pulled profile, also where nothing
        tells that the set here is the same, and where its choice is a condition: somebody else has written that, so it
        is shown, never run.
    """
    from nait_store.registry.in_domain import choose_rows
    from nait_store.registry.sample_weights import recorded_weights

    source = profile.record.source
    if source is None:
        raise NotFoundError(
            f"{profile.reference} was made from {profile.record.made_from}, not from samples",
            next_step="name one that was built",
        )
    if profile.manifest.origin is not None and source.where is not None:
        raise NotFoundError(
            f"{profile.reference} was pulled, and its samples are those of {source.set_name}@{source.version} elsewhere"
            f" for which {source.where!r} holds"
        )
    version = store.sets.open(f"{source.set_name}@{source.version}")
    rows = None
    if source.where is not None:
        from nait_store.query.rows import matching_rows

        rows = matching_rows(store.session, version, source.where)
    chosen = choose_rows(version, subset=rows, limit=source.limit, seed=source.seed or 0)
    if chosen.sample_ids_sha256 != source.sample_ids_sha256:
        raise NotFoundError(f"{version.reference} no longer holds all samples that {profile.reference} was made from")
    if profile.manifest.origin is not None:
        _require_same_content(store, profile, version, chosen)
    if source.weights is not None:
        chosen = recorded_weights(source.weights, chosen.sample_ids()).weigh(chosen)
    return version, chosen


def _require_same_content(store: Store, profile: Profile, version: SetVersion, chosen: ChosenRows) -> None:
    """Refuse a set that only has the name of the one that a pulled profile was made from, and perhaps its ids."""
    from nait_store.registry.sharing.reference_samples import content_hashes, stored_reference

    made = f"{profile.reference} was made in another store, from its {version.reference}"
    reference = stored_reference(store.location, profile)
    if reference is None:
        raise NotFoundError(
            f"{made}, and nothing came with it that tells whether the set of this name here is the same"
        )
    if list(reference.content_sha256) != content_hashes(chosen):
        raise NotFoundError(f"{made}; the set of this name here holds other samples")
