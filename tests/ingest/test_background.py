"""The writer's thread: woken by the end, whatever it waits for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from nait_store.ingest import background
from nait_store.ingest.background import BackgroundWriter


class IdleSink:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda: self.asked.append(name)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> tuple[BackgroundWriter, IdleSink]:
    """A writer whose thread waits for a batch, and would for a minute."""
    monkeypatch.setattr(background, "_TICK_SECONDS", 60.0)
    waits = threading.Event()

    class Queue(background.queue.Queue):  # type: ignore[type-arg]
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            waits.set()
            return super().get(block, timeout)

    monkeypatch.setattr(background.queue, "Queue", Queue)
    sink = IdleSink()
    writer = BackgroundWriter(sink, lambda _rejected: None)  # type: ignore[arg-type]
    assert waits.wait(30)
    return writer, sink


@pytest.mark.parametrize(("how", "asked"), [("finish", ["flush"]), ("abort", ["discard", "discard"])])
def test_the_end_wakes_a_thread_that_waits_for_a_batch(
    idle: tuple[BackgroundWriter, IdleSink], how: str, asked: list[str]
) -> None:
    writer, sink = idle
    began = time.monotonic()
    getattr(writer, how)()
    assert time.monotonic() - began < 30
    assert sink.asked == asked


def test_the_formats_are_imported_before_the_first_segment_needs_them() -> None:
    script = (
        "import sys\n"
        "from nait_store.activations.first_use import import_formats\n"
        "from nait_store.activations.sample_rows import samples_parquet\n"
        "from nait_store.testing.stores import fake_row\n"
        "import_formats()\n"
        "before = set(sys.modules)\n"
        "samples_parquet([fake_row('a', 0)])\n"
        "from nait_store.activations.chunks import segment_metadata\n"
        "from nait_store.schemas.capture import Feature, HookPoint, StoredDtype\n"
        "arrays = [(Feature.MEAN, StoredDtype.FLOAT16, 1)]\n"
        "segment_metadata('s', 1, (0,), 4, arrays, capture_id='c', hook_point=HookPoint.MLP, model='m')\n"
        "print(len(set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 0
