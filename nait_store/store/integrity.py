"""Verification of a whole store: every file against its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_store.errors import NaitStoreError
from nait_store.refs import Kind
from nait_store.storage import layout
from nait_store.storage.verify import Finding, Severity, verify_payload

if TYPE_CHECKING:
    from nait_store.store.facade import Store


@dataclass(frozen=True)
class VerifyReport:
    """Outcome of a verification.

    Attributes
    ----------
    findings
        Everything worth knowing; paths are relative to the store's root.
    n_sets, n_profiles, n_selections
        What was looked at, every version of it.
    quick
        Whether sizes were compared only.
    """

    findings: tuple[Finding, ...]
    n_sets: int
    n_profiles: int
    n_selections: int
    quick: bool

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What is damaged or lost."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.errors


def verify(store: Store, *, quick: bool = False) -> VerifyReport:
    """Verify every set, profile and selection of a store.

    Parameters
    ----------
    store
        The store; nothing in it is changed.
    quick
        Whether to compare sizes and leave the hashing out.
    """
    from nait_store.activations.verify import verify_set

    findings: list[Finding] = []
    set_names, profile_names = store.sets.names(), store.profiles.names()
    for name in set_names:
        try:
            findings += verify_set(store.sets.versions, name, quick=quick, progress=store.progress)
        except NaitStoreError as error:
            findings.append(Finding(layout.item_folder(Kind.SET, name), error.what))
    for name in profile_names:
        for number in store.profiles.registry.numbers(name):
            findings += _verify_profile(store, name, number, quick=quick)
    findings += store.selections.verify(quick=quick)
    return VerifyReport(tuple(findings), len(set_names), len(profile_names), len(store.selections.names()), quick)


def _verify_profile(store: Store, name: str, number: int, *, quick: bool) -> list[Finding]:
    try:
        profile = store.profiles.open(f"{name}@{number}")
        damaged = verify_payload(
            store.location,
            profile.folder,
            profile.record.files,
            hashed=not quick,
            ignore=frozenset({"profile.json"}),
        )
        if not quick and not any(finding.severity is Severity.ERROR for finding in damaged):
            profile.directions()
    except NaitStoreError as error:
        return [Finding(layout.version_document(Kind.PROFILE, name, number), error.what)]
    return damaged
