from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCRIPT = Path(__file__).with_name("killed_ingests.py")


def test_an_ingest_killed_at_any_write_loses_nothing_and_is_resumed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(_SCRIPT), str(tmp_path / "stores"), str(tmp_path / "source.jsonl")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30  # every file of two segments, the plan, the version and the outcome
