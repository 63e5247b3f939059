"""Who writes: author, time, program; and fresh ULIDs.

What that takes is imported where it is needed: who only reads needs none of it, and it takes as long as a small query.
"""

from __future__ import annotations

import functools
import os
from datetime import UTC, datetime

from nait_store.schemas.record import Provenance


def now() -> datetime:
    """Current time in UTC."""
    return datetime.now(UTC)


def new_ulid() -> str:
    """Return a fresh ULID: 26 characters that sort by creation time."""
    from ulid import ULID

    return str(ULID())


@functools.cache
def package_version() -> str:
    """Version of the installed package; read from its metadata once, which takes milliseconds."""
    import importlib.metadata

    return importlib.metadata.version("nait-store")


def current_provenance() -> Provenance:
    """Provenance of a record written now, by this process."""
    return Provenance(created_at=now(), author=author(), writer=f"nait-store {package_version()}")


def author() -> str:
    """``NAIT_STORE_AUTHOR``, else ``user@host``."""
    named = os.environ.get("NAIT_STORE_AUTHOR")
    if named:
        return named
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no passwd entry, e.g. an arbitrary uid in a container
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
