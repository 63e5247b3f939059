"""One real Ray cluster for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nait_store.cluster.ray_cluster import RayCluster, ray_cluster

N_CPUS = 3  # as far as Ray is concerned: that many workers at once


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A cluster of this machine, in other processes than this one."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local",
        num_cpus=N_CPUS,
        object_store_memory=80 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        with ray_cluster("auto") as joined:
            yield joined
    finally:
        ray.shutdown()
