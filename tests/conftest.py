"""What holds for every test."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from nait_store.testing.object_store import ObjectStore
from nait_store.testing.object_store import object_store as run_object_store
from tests.warm_processes import warm_programs

# Two test processes share two cores, with whatever else the machine does: slowness is not a failure here.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")

# A shell that starts something in the background has it ignore Ctrl-C, and whatever that starts in turn.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test outlives a crash of the machine; waiting for the disk some two hundred times a test was a third of the time.
# Tests of what is synced, and when, bring a function of their own; the programs that tests start do sync.
os.fsync = lambda _descriptor: None


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """An S3 server for this test process, started when the first test asks; ``object_store.new_url()`` is empty."""
    with run_object_store() as store:
        yield store


@pytest.fixture(scope="session")
def programs() -> Iterator[Path]:
    """Folder of a ``nait-store`` and a ``python`` that start with torch and the like already imported."""
    with warm_programs() as folder:
        yield folder


# Minutes rather than milliseconds: these go first, or one process would still be at them when the others are done.
_SLOW = ("tests/benchmarks", "tests/docs", "tests/demo", "tests/packaging")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for ``--dist loadfile --no-loadscope-reorder``, which hands them out as they come."""
    items.sort(key=lambda item: not item.nodeid.startswith(_SLOW))
