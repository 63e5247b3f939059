"""A small Ray cluster of this machine, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Iterator
from typing import Any

_PATIENCE = 20.0


@contextlib.contextmanager
def small_cluster(n_cpus: int) -> Iterator[None]:
    """Start a cluster in other processes than this one, connect to it, and stop it at the end of the block.

    Parameters
    ----------
    n_cpus
        As far as Ray is concerned: so many tasks run at once.
    """
    ray: Any = importlib.import_module("ray")
    with patience():
        ray.init(
            address="local",
            num_cpus=n_cpus,
            object_store_memory=80 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Give a cluster that is started within the block ten minutes for that.

    Ray gives it 30 seconds, which a machine with much else to do may take, and has no setting for it: so the clock by
    which it measures them goes slower.
    """
    node: Any = importlib.import_module("ray._private.node")
    clock = node.time
    node.time = _SlowClock()
    try:
        yield
    finally:
        node.time = clock


class _SlowClock:
    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() / _PATIENCE
