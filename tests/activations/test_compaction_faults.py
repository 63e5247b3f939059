"""A compaction that is killed, or meets a full disk, at some of its steps; `benchmarks/faults` does it at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.faults.compaction import compacted, filled, killed_at, outcome
from nait_store.activations.versions import ActivationSets
from nait_store.errors import NaitStoreError
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.testing.faults import no_space_at, no_space_from, write_steps


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compaction") / "store"
    filled(str(folder))
    return folder


@pytest.fixture(scope="module")
def n_steps(store: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    copy = shutil.copytree(store, tmp_path_factory.mktemp("counted") / "store")
    with write_steps(str(copy)) as steps:
        compacted(str(copy))
    return len(steps)


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return shutil.copytree(store, tmp_path / "store")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.8, 0.93, 0.97, 1.0])
def test_a_kill_leaves_the_version_before_or_the_version_after(
    store: Path, copy: Path, n_steps: int, share: float
) -> None:
    killed_at(str(copy), round(share * (n_steps - 1)))
    assert outcome(str(store), str(copy)) == []


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0])
def test_a_full_disk_leaves_the_store_as_it_was(store: Path, copy: Path, n_steps: int, share: float) -> None:
    step = round(share * (n_steps - 1))
    before = Location(str(copy)).names(layout.segment_folder("pool"))
    try:
        with write_steps(str(copy), before=no_space_from(step)):
            compacted(str(copy))
    except NaitStoreError as error:
        assert "No space left" in str(error)  # noqa: PT017 - the last steps only clean up, and may fail silently
        assert ActivationSets(Location(str(copy))).numbers("pool") == [1, 2, 3]
        assert Location(str(copy)).names(layout.segment_folder("pool")) == before
    assert outcome(str(store), str(copy)) == []


@pytest.mark.parametrize("share", [0.15, 0.45, 0.75, 0.92, 0.98])
def test_a_full_disk_for_a_moment_leaves_the_store_whole(store: Path, copy: Path, n_steps: int, share: float) -> None:
    step = round(share * (n_steps - 1))
    try:
        with write_steps(str(copy), before=no_space_at(step)):
            compacted(str(copy))
    except NaitStoreError as error:
        assert "No space left" in str(error)  # noqa: PT017
    assert outcome(str(store), str(copy)) == []
