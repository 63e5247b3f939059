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
        The set version is gone, or the choice gives other samples than it did.
    """
    from nait_store.registry.in_domain import choose_rows

    source = profile.record.source
    if source is None:
        raise NotFoundError(
            f"{profile.reference} was made from {profile.record.made_from}, not from samples",
            next_step="name one that was built",
        )
    version = store.sets.open(f"{source.set_name}@{source.version}")
    rows = None
    if source.where is not None:
        from nait_store.query.rows import matching_rows

        rows = matching_rows(store.session, version, source.where)
    chosen = choose_rows(version, subset=rows, limit=source.limit, seed=source.seed or 0)
    if chosen.sample_ids_sha256 != source.sample_ids_sha256:
        raise NotFoundError(f"{version.reference} no longer holds all samples that {profile.reference} was made from")
    return version, chosen
