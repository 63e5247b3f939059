"""Comparing what lies on disk with what the records say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from nait_store.errors import CorruptChunkError
from nait_store.schemas.record import FileDigest
from nait_store.storage.digests import check_file
from nait_store.storage.location import Location


class Severity(StrEnum):
    """``error``: data is damaged or lost. ``info``: worth knowing, nothing is lost."""

    ERROR = "error"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """Something that verification came across.

    Attributes
    ----------
    path
        File or folder, relative to the store's root.
    problem
        What is wrong with it, in words.
    severity
        Whether it matters.
    """

    path: str
    problem: str
    severity: Severity = Severity.ERROR


def verify_payload(
    location: Location,
    folder: str,
    files: Iterable[FileDigest],
    *,
    hashed: bool,
    ignore: frozenset[str] = frozenset(),
    checked: Callable[[FileDigest], None] = lambda _: None,
) -> list[Finding]:
    """Compare every file of an immutable payload with its record.

    Parameters
    ----------
    location, folder
        Where the payload lies.
    files
        Its files as the record lists them.
    hashed
        Whether to read and hash every byte, or only compare sizes.
    ignore
        Files that may be there without being listed, e.g. the record itself.
    checked
        Called after each file.

    Returns
    -------
    list of Finding
        An error for each file that is missing or differs; an info for each file that nothing lists.
    """
    findings = []
    listed = set(ignore)
    for file in files:
        listed.add(file.path)
        try:
            check_file(location, folder, file, hashed=hashed)
        except CorruptChunkError as error:
            findings.append(Finding(f"{folder}/{file.path}", error.what))
        checked(file)
    for path, _ in location.sub(folder).walk():
        if path not in listed:
            findings.append(Finding(f"{folder}/{path}", "no record lists this file", Severity.INFO))
    return findings
