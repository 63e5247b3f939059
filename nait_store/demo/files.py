"""What the demonstration ships: its model, its data, and how to lay them out for a user."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODEL = FOLDER / "model"
DATA = FOLDER / "data"


def shipped_files() -> list[Path]:
    """Every data file of the demonstration, sorted: the model's and the two record files."""
    return sorted(path for folder in (MODEL, DATA) for path in folder.iterdir() if path.is_file())


def read_data(name: str) -> bytes:
    """Return one shipped record file as JSON Lines; ``name`` is ``"pool"`` or ``"maths"``."""
    return gzip.decompress((DATA / f"{name}.jsonl.gz").read_bytes())


def copy_inputs(folder: Path) -> bool:
    """Lay out ``pool.jsonl``, ``maths.jsonl`` and ``model/`` in a folder, as a user would have them.

    Parameters
    ----------
    folder
        Made if absent. Files that are there with the same bytes are left alone.

    Returns
    -------
    bool
        Whether anything was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = False
    for name in ("pool", "maths"):
        target = folder / f"{name}.jsonl"
        content = read_data(name)
        if not target.is_file() or target.read_bytes() != content:
            target.write_bytes(content)
            written = True
    model = folder / "model"
    model.mkdir(exist_ok=True)
    for source in sorted(MODEL.iterdir()):
        target = model / source.name
        if not target.is_file() or target.read_bytes() != source.read_bytes():
            shutil.copyfile(source, target)
            written = True
    return written
