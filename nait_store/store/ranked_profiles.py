"""Which profiles an analysis is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nait_store.activations.set_version import SetVersion
    from nait_store.registry.profiles import Profile
    from nait_store.store.facade import Store


def ranked_profiles(
    store: Store, references: Sequence[str], version: SetVersion, *, force: bool
) -> tuple[list[Profile], list[str]]:
    """Open profiles that apply to a set, and warn of what shifts their scores.

    Parameters
    ----------
    references
        ``math``, ``code@2`` …; the latest version of every profile that applies where none is named.

    Raises
    ------
    NotFoundError
        Unknown profile or version.
    IncompatibleError
        A profile that was named means nothing on this set.
    """
    from nait_store.registry.compatibility import differences, require_compatible

    if references:
        profiles = [store.profiles.open(reference) for reference in references]
    else:
        opened = [store.profiles.open(name) for name in store.profiles.names()]
        profiles = [p for p in opened if all(d.severity != "refuse" for d in differences(p.record, version))]
    warnings = [text for profile in profiles for text in require_compatible(profile, version, force=force)]
    return profiles, list(dict.fromkeys(warnings))
