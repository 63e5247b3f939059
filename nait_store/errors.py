"""Every error the library raises on purpose.

The tree is grouped by what a handler would do::

    NaitStoreError                 exit 1
    ├── NotFoundError (KeyError)       exit 3   name something that exists
    ├── AlreadyExistsError             exit 4   choose another name
    ├── ConflictError                  exit 5   somebody else wrote first: look, then try again
    ├── IncompatibleError              exit 6   the two things measure different quantities
    ├── InvalidInputError (ValueError) exit 7   correct the input
    ├── ReadOnlyError                  exit 8   the store cannot be written from here
    ├── FormatError                    exit 9   the store's bytes are not what the format says
    │   ├── CorruptChunkError          exit 9   a digest or size differs: ``nait-store verify``
    │   └── UnsupportedVersionError    exit 9   written by a newer release: upgrade
    ├── StorageError                   exit 10  disk or network failed: retry when it works again
    ├── MissingExtraError              exit 11  install the named extra
    ├── ForbiddenError                 exit 12  the sandbox refuses it: write the query without it
    ├── LimitExceededError             exit 13  the sandbox stopped it: ask for less, or allow more
    ├── UntrustedError                 exit 14  nobody whom the store trusts vouches for it
    └── IngestInterrupted              exit 130 Ctrl-C: run the same command again to go on

``kind`` is a stable, append-only code; ``exit_code`` is what the command line returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class NaitStoreError(Exception):
    """Base class: a message that says what and where, and the next step to take.

    Parameters
    ----------
    what
        What went wrong and where, one sentence.
    next_step
        What the user can do about it, one imperative sentence; shown on its own line.
    """

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, next_step: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step

    def __str__(self) -> str:
        return self.what if self.next_step is None else f"{self.what}\n  → {self.next_step}"


class NotFoundError(NaitStoreError, KeyError):
    """A store, set, profile, version, sample, layer, column or file does not exist."""

    kind = "not_found"
    exit_code = 3


class AlreadyExistsError(NaitStoreError):
    """Something with this name exists and is immutable."""

    kind = "already_exists"
    exit_code = 4


class ConflictError(NaitStoreError):
    """Two writers disagree, or one record id carries two contents."""

    kind = "conflict"
    exit_code = 5


class IncompatibleError(NaitStoreError):
    """The quantities to be combined were measured differently; the message names each differing field."""

    kind = "incompatible"
    exit_code = 6


class InvalidInputError(NaitStoreError, ValueError):
    """An argument, name, query or data file cannot be used as it is."""

    kind = "invalid_input"
    exit_code = 7


class ReadOnlyError(NaitStoreError):
    """The store cannot be written from here."""

    kind = "read_only"
    exit_code = 8


class FormatError(NaitStoreError):
    """A file of the store does not follow the documented format."""

    kind = "format"
    exit_code = 9


class CorruptChunkError(FormatError):
    """A file's size or digest differs from its record."""

    kind = "corrupt_chunk"


class UnsupportedVersionError(FormatError):
    """The store uses a format version or feature flag that this release does not know."""

    kind = "unsupported_version"


class StorageError(NaitStoreError):
    """Reading or writing failed below us: permissions, full disk, network."""

    kind = "storage"
    exit_code = 10


class MissingExtraError(NaitStoreError):
    """An optional dependency is needed for what was asked."""

    kind = "missing_extra"
    exit_code = 11


class IngestInterrupted(NaitStoreError):  # noqa: N818 - an interruption is no error of anyone's
    """Ctrl-C during an ingest; the message says what was kept."""

    kind = "interrupted"
    exit_code = 130


class ForbiddenError(NaitStoreError):
    """An untrusted query uses something that the sandbox does not allow; the message names it."""

    kind = "forbidden"
    exit_code = 12


class LimitExceededError(NaitStoreError):
    """An untrusted query took more time, memory or output than it may, and was stopped."""

    kind = "limit_exceeded"
    exit_code = 13


class UntrustedError(NaitStoreError):
    """A signature of a trusted key is required, and there is none."""

    kind = "untrusted"
    exit_code = 14


def did_you_mean(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """Phrase near matches of an unknown name for an error's next step.

    Parameters
    ----------
    name
        What the user wrote.
    known
        The names that exist.
    limit
        How many near matches to name.

    Returns
    -------
    str
        ``"did you mean 'math' or 'maths'?"``, else a list of what exists, else ``"none exists yet"``.
    """
    import difflib  # only those who err need it

    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=limit, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    if not names:
        return "none exists yet"
    shown = ", ".join(names[:10])
    return f"these exist: {shown}" + (f", … ({len(names)} in all)" if len(names) > 10 else "")
