"""Memory of the machine: peaks that can be forgotten, and what a container leaves."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from nait_store.capture import memory
from nait_store.capture.memory import forget_peak, free_memory_bytes, peak_memory_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget the peak")
def test_a_peak_is_measured_and_forgotten() -> None:
    forget_peak("cpu")
    before = peak_memory_bytes("cpu")
    block = np.ones(96 << 20, dtype=np.uint8)
    assert peak_memory_bytes("cpu") >= before + (64 << 20)
    del block
    forget_peak("cpu")
    assert peak_memory_bytes("cpu") < before + (32 << 20)


def test_a_container_leaves_less_than_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_host_bytes", lambda: 9000)
    assert free_memory_bytes("cpu") == 9000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_bytes("cpu") == 9000
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("1200\n")
    assert free_memory_bytes("cpu") == 3800
