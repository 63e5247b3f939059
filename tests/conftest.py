"""What holds for every test."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from nait_store.testing.object_store import ObjectStore
from nait_store.testing.object_store import object_store as run_object_store

# Two test processes share two cores, with whatever else the machine does: slowness is not a failure here.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """An S3 server for this test process, started when the first test asks; ``object_store.new_url()`` is empty."""
    with run_object_store() as store:
        yield store
