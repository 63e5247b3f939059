"""Where this user's caches lie: things that may vanish at any time without loss."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for caches; it need not exist and may not be writable.

    Returns
    -------
    Path
        ``$NAIT_STORE_CACHE``, else ``~/Library/Caches/nait-store`` on macOS, else ``$XDG_CACHE_HOME/nait-store``,
        else ``~/.cache/nait-store``.
    """
    chosen = os.environ.get("NAIT_STORE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where there is no home at all
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "nait-store"
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative values ignored.
    return (Path(base) if base.startswith("/") else home / ".cache") / "nait-store"
