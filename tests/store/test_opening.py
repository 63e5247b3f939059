"""Creating and opening stores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import nait_store
from nait_store.errors import InvalidInputError, NotFoundError, ReadOnlyError
from nait_store.schemas.record import document_bytes
from nait_store.schemas.store_record import StoreRecord
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set


def test_create_then_open(url: str) -> None:
    created = nait_store.open(url, create=True)
    opened = nait_store.open(url)
    assert (created.created, opened.created) == (True, False)
    assert opened.record == created.record
    assert opened.url == created.url
    assert repr(opened) == f"Store({opened.url!r})"


def test_creating_an_existing_store_opens_it(url: str) -> None:
    first = nait_store.open(url, create=True)
    assert nait_store.open(url, create=True).record.store_id == first.record.store_id


def test_a_missing_store_is_not_created_by_the_way(url: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        nait_store.open(url)
    assert f"nait-store --store {Location(url).url} init" in str(caught.value.next_step)
    assert list(Location(url).walk()) == []


def test_racing_creators_agree(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: nait_store.open(url, create=True), range(16)))
    assert len({store.record.store_id for store in stores}) == 1
    assert sum(store.created for store in stores) == 1


def test_the_environment_names_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAIT_STORE", str(tmp_path / "named"))
    assert nait_store.open(create=True).url == str(tmp_path / "named")
    monkeypatch.setenv("NAIT_STORE", "")
    monkeypatch.chdir(tmp_path)
    assert nait_store.open(create=True).url == str(tmp_path / ".nait-store")


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for create in (True, False):
        with pytest.raises(InvalidInputError, match="is a file"):
            nait_store.open(str(tmp_path / "file"), create=create)


def test_unknown_writer_features_allow_reading_only(url: str) -> None:
    store = nait_store.open(url, create=True)
    build_set(store.location, "pool", 5)
    record = store.record.model_copy(update={"writer_features": ("teleportation",)})
    store.location.write_bytes("store.json", record.to_json_bytes())
    opened = nait_store.open(url)
    assert opened.sql("SELECT count(*) FROM samples('pool')").fetchall() == [(5,)]
    with pytest.raises(ReadOnlyError, match="teleportation"):
        opened.ingest("x.jsonl", set="pool", model="m")
    with pytest.raises(ReadOnlyError, match="teleportation"):
        opened.selections.save("s", opened.select("pool", strategy="random", top=1))


def test_fields_of_later_releases_are_ignored(url: str) -> None:
    store = nait_store.open(url, create=True)
    data = document_bytes({**store.record.model_dump(mode="json"), "later": 1})
    store.location.write_bytes("store.json", data)
    assert nait_store.open(url).record == StoreRecord.model_validate(store.record.model_dump())
