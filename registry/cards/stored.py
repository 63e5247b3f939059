"""``card.json`` of a payload: written by the build, read and checked like everything that may come from anywhere."""

from __future__ import annotations

from nait_store.errors import CorruptChunkError, FormatError
from nait_store.registry.payload import CARD_FILE, MAX_CARD_BYTES, read_limited
from nait_store.schemas.profile import ProfileRecord
from nait_store.schemas.quality_card import QualityCard
from nait_store.schemas.record import FileDigest
from nait_store.storage.digests import check_size, sha256_bytes, write_payload_file
from nait_store.storage.location import Location
from nait_store.storage.readable_files import ReadableFiles


def write_card(location: Location, folder: str, card: QualityCard) -> FileDigest:
    """Write the card of a payload, and return its entry of the record's ``files``."""
    return write_payload_file(location, folder, CARD_FILE, card.to_json_bytes())


def read_card(location: ReadableFiles, folder: str, record: ProfileRecord) -> QualityCard | None:
    """Read and check the card of a payload.

    Parameters
    ----------
    location, folder
        Where the payload lies.
    record
        Its ``profile.json``.

    Returns
    -------
    QualityCard or None
        None where the build made none.

    Raises
    ------
    CorruptChunkError
        Missing, or other bytes than recorded.
    FormatError
        More than 4 MiB, no card, numbers that cannot be, or a card of other layers or of more samples.
    """
    expected = next((file for file in record.files if file.path == CARD_FILE), None)
    if expected is None:
        return None
    path = f"{folder}/{CARD_FILE}"
    url = location.url_of(path)
    check_size(location, folder, expected)
    data = read_limited(location, path, MAX_CARD_BYTES)
    if sha256_bytes(data) != expected.sha256:
        raise CorruptChunkError(f"{url} differs from its recorded SHA-256")
    card = QualityCard.from_json_bytes(data, url)
    n_samples = 0 if record.source is None else record.source.n_samples
    if tuple(layer.layer for layer in card.layers) != record.layers:
        raise FormatError(f"{url} is about other layers than the profile's")
    if card.n_samples > n_samples or any(one.position >= n_samples for one in (*card.top, *card.bottom)):
        raise FormatError(f"{url} is about more samples than the profile is made of")
    return card
