"""The in-domain samples of a profile, or hashes of them, as they travel with it.

A direction means nothing in another model's basis. What crosses models is the samples: who has them, by whatever way,
can build the sister profile. Hashes tell whether a file holds the same ones.
"""

from __future__ import annotations

import hashlib
import json

from nait_store.errors import FormatError, InvalidInputError
from nait_store.registry.in_domain import ChosenRows
from nait_store.registry.profiles import Profile
from nait_store.schemas.profile import ProfileRecord
from nait_store.schemas.sharing import ReferencePolicy, ReferenceSample, ReferenceSamples
from nait_store.storage.digests import check_file
from nait_store.storage.location import Location

REFERENCE_FILE = "reference.json"
MAX_REFERENCE_BYTES = 64 << 20
_COLUMNS = ("sample_id", "content_hash", "record")


def reference_bytes(chosen: ChosenRows, policy: ReferencePolicy) -> bytes:
    """Write down the chosen samples.

    Parameters
    ----------
    chosen
        The rows that a profile was built from.
    policy
        ``full`` or ``hashes``.

    Raises
    ------
    InvalidInputError
        They come to more than 64 MiB.
    """
    samples: list[ReferenceSample] = []
    if policy is ReferencePolicy.FULL:
        for segment, rows in chosen.rows:
            columns = (segment.samples(list(_COLUMNS)).column(name).take(rows).to_pylist() for name in _COLUMNS)
            samples += (
                ReferenceSample(sample_id=sample_id, content_sha256=content_hash, record=record)
                for sample_id, content_hash, record in zip(*columns, strict=True)
            )
    document = ReferenceSamples(
        content_sha256=tuple(content_hashes(chosen)),
        samples=tuple(sorted(samples, key=lambda sample: sample.sample_id)),
    )
    data = document.to_json_bytes()
    if len(data) > MAX_REFERENCE_BYTES:
        raise InvalidInputError(
            f"the {chosen.n_samples:,} reference samples come to {len(data):,} bytes, more than the "
            f"{MAX_REFERENCE_BYTES:,} that may travel",
            next_step="push with --reference hashes, and send the samples another way",
        )
    return data


def content_hashes(chosen: ChosenRows) -> list[str]:
    """Ascending content hashes of the chosen samples."""
    return sorted(
        content_hash
        for segment, rows in chosen.rows
        for content_hash in segment.samples(["content_hash"]).column("content_hash").take(rows).to_pylist()
    )


def read_reference(data: bytes, where: str) -> ReferenceSamples:
    """Read ``reference.json``; FormatError and CorruptChunkError as for every document."""
    return ReferenceSamples.from_json_bytes(data, where)


def check_reference(reference: ReferenceSamples, policy: ReferencePolicy, record: ProfileRecord, where: str) -> None:
    """Check that the samples are those that the profile says it was built from, as far as they tell.

    Raises
    ------
    FormatError
        Another number of them, other ids, no JSON records, or records where only hashes were announced.
    """
    hashes, samples, source = list(reference.content_sha256), reference.samples, record.source
    if source is None:
        raise FormatError(f"{where} holds {len(hashes):,} samples, and the profile was made from none")
    if len(hashes) != source.n_samples:
        raise FormatError(f"{where} holds {len(hashes):,} samples, the profile is of {source.n_samples:,}")
    if hashes != sorted(hashes):
        raise FormatError(f"{where}: its hashes are not in ascending order")
    if (policy is ReferencePolicy.FULL) != bool(samples):
        raise FormatError(f"{where} holds {len(samples):,} records, which contradicts the policy {policy.value!r}")
    if not samples:
        return
    if sorted(sample.content_sha256 for sample in samples) != hashes:
        raise FormatError(f"{where}: its records are not those of its hashes")
    ids = "\n".join(sorted(sample.sample_id for sample in samples))
    if hashlib.sha256(ids.encode()).hexdigest() != source.sample_ids_sha256:
        raise FormatError(f"{where} holds other samples than the profile was built from")
    for sample in samples:
        if not _is_object(sample.record):
            raise FormatError(f"{where}: the record of sample {sample.sample_id[:80]!r} is no JSON object")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def stored_reference(location: Location, profile: Profile) -> ReferenceSamples | None:
    """Read the reference samples that came with a pulled version; None where none came.

    Parameters
    ----------
    location
        Root of the store that has it.
    profile
        The version.

    Raises
    ------
    CorruptChunkError, FormatError
        The file is missing, or is not what came.
    """
    file = None if profile.manifest.origin is None else profile.manifest.origin.reference.file
    if file is None:
        return None
    check_file(location, profile.folder, file, hashed=True)
    path = f"{profile.folder}/{file.path}"
    return read_reference(location.read_bytes(path), location.url_of(path))
