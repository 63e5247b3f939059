"""Every hostile bundle is refused with a reason, and nothing is written, in the store or beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nait_store
from nait_store.errors import FormatError, NotFoundError
from nait_store.storage.location import Location
from nait_store.testing.faults import write_steps
from tests.sharing.conftest import new_store
from tests.sharing.forged_bundles import ATTACKS, Forgery

Digests = Callable[[Any], dict[str, str]]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of math@2."""
    folder = tmp_path_factory.mktemp("honest")
    store = new_store(str(folder / "store"))
    store.profiles.build("math", source="gsm8k", method="mean", quality_card=False)
    store.profiles.build("math", source="gsm8k", method="mean", limit=16)
    store.remotes.export_bundle("math@2", str(folder / "math.zip"))
    return folder / "math.zip"


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> nait_store.Store:
    """A store in a folder that nothing else is in."""
    return nait_store.open(str(tmp_path_factory.mktemp("victim") / "store"), create=True)


def test_there_are_at_least_forty() -> None:
    assert len(ATTACKS) >= 40


def test_forgery_without_changes_is_accepted(honest: Path, tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    (tmp_path / "same.zip").write_bytes(Forgery.of(honest).bytes())
    assert store.remotes.import_bundle(str(tmp_path / "same.zip"))[0].created


@pytest.mark.parametrize("name", ATTACKS)
def test_is_refused_and_nothing_is_written(
    name: str, honest: Path, victim: nait_store.Store, tmp_path: Path, digests: Digests
) -> None:
    reason, make = ATTACKS[name]
    bundle = tmp_path / "hostile.zip"
    bundle.write_bytes(make(Forgery.of(honest)))
    before = digests(victim)
    with write_steps("/") as steps, pytest.raises((FormatError, NotFoundError), match=reason):
        victim.remotes.import_bundle(str(bundle))
    assert [step for step in steps if step.what != "unlink"] == []
    assert digests(victim) == before


@pytest.mark.parametrize("name", ["directions that are not a number", "record of another capture", "other directions"])
def test_what_a_registry_serves_passes_the_same_check(
    name: str, honest: Path, tmp_path: Path, digests: Digests
) -> None:
    reason, make = ATTACKS[name]
    (tmp_path / "hostile.zip").write_bytes(make(Forgery.of(honest)))
    shutil.unpack_archive(tmp_path / "hostile.zip", tmp_path / "registry")
    store = nait_store.open(str(tmp_path / "store"), create=True)
    before = digests(store)
    with pytest.raises(FormatError, match=reason):
        store.remotes.pull("math@2", str(tmp_path / "registry"))
    assert digests(store) == before
    assert list(Location(store.url).leftovers()) == []
