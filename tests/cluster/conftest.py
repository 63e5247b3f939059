"""One real Ray cluster for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nait_store.cluster.ray_cluster import RayCluster, ray_cluster
from nait_store.testing.small_cluster import small_cluster

N_CPUS = 3  # that many workers at once


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A cluster of this machine, in other processes than this one."""
    pytest.importorskip("ray")
    with small_cluster(N_CPUS), ray_cluster("auto") as joined:
        yield joined
