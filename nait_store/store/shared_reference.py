"""What travels of a profile's in-domain samples: read from the set that it was built from, or as it came itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nait_store.errors import NaitStoreError, NotFoundError
from nait_store.schemas.sharing import ReferencePolicy, ReferenceSamples
from nait_store.store.in_domain_rows import in_domain_rows

if TYPE_CHECKING:
    from nait_store.registry.profiles import Profile
    from nait_store.store.facade import Store


@dataclass
class TravellingReference:
    """The reference samples of a version that is about to be pushed.

    Attributes
    ----------
    store, profile
        The version, and the store that has it.
    policy
        What was asked for; None for hashes where they can be told, else nothing.
    notes
        What the user should know, filled by :meth:`make`.
    """

    store: Store
    profile: Profile
    policy: ReferencePolicy | None
    notes: list[str] = field(default_factory=list)

    def make(self) -> tuple[ReferencePolicy, bytes | None]:
        """Give what travels.

        Raises
        ------
        NotFoundError
            What was asked for is not in the store any more.
        InvalidInputError
            It is too large to travel.
        """
        wanted = self.policy or ReferencePolicy.HASHES
        if wanted is ReferencePolicy.NONE:
            return wanted, None
        try:
            return wanted, self._bytes(wanted)
        except NaitStoreError as error:
            if self.policy is not None:
                raise
            self.notes.append(f"no hashes of the in-domain samples travel with {self.profile.reference}: {error.what}")
            return ReferencePolicy.NONE, None

    def _bytes(self, policy: ReferencePolicy) -> bytes:
        if self.profile.manifest.origin is not None:
            return self._as_it_came(policy)
        from nait_store.registry.sharing.reference_samples import reference_bytes

        return reference_bytes(in_domain_rows(self.store, self.profile)[1], policy)

    def _as_it_came(self, policy: ReferencePolicy) -> bytes:
        from nait_store.registry.sharing.reference_samples import stored_reference

        reference = stored_reference(self.store.location, self.profile)
        if reference is None or (policy is ReferencePolicy.FULL and not reference.samples):
            what = "no reference samples" if reference is None else "hashes of its reference samples only"
            raise NotFoundError(
                f"{self.profile.reference} came with {what}",
                next_step="push it with --reference hashes" if reference is not None else "push with --reference none",
            )
        if policy is ReferencePolicy.FULL:
            return reference.to_json_bytes()
        return ReferenceSamples(content_sha256=reference.content_sha256).to_json_bytes()
