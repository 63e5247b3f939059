from __future__ import annotations

import pytest

from nait_store.errors import ConflictError, FormatError, NotFoundError
from nait_store.refs import Kind, parse_reference
from nait_store.schemas.selection import SelectionManifest
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.storage.versions import VersionLog


def _manifest(number: int, name: str = "best") -> SelectionManifest:
    return SelectionManifest(
        name=name, number=number, payload=new_ulid(), record_sha256="0" * 64, provenance=current_provenance()
    )


@pytest.fixture
def log(location: Location) -> VersionLog[SelectionManifest]:
    return VersionLog(location, Kind.SELECTION, SelectionManifest)


def _resolve(log: VersionLog[SelectionManifest], text: str) -> int:
    return log.resolve(parse_reference(text, Kind.SELECTION))


def test_an_empty_log_has_no_names_and_no_latest(log: VersionLog[SelectionManifest]) -> None:
    assert log.names() == []
    assert log.latest("best") is None


def test_versions_are_numbered_and_read_back(log: VersionLog[SelectionManifest]) -> None:
    written = [_manifest(n) for n in range(1, 13)]
    for manifest in written:
        log.commit("best", manifest.number, manifest)
    assert log.numbers("best") == list(range(1, 13))  # by number, not as text
    assert log.latest("best") == 12
    assert log.read("best", 7) == written[6]
    assert log.names() == ["best"]


def test_committing_a_taken_number_is_a_conflict_and_changes_nothing(log: VersionLog[SelectionManifest]) -> None:
    first = _manifest(1)
    log.commit("best", 1, first)
    with pytest.raises(ConflictError, match="best@1 was committed by another writer"):
        log.commit("best", 1, _manifest(1))
    assert log.read("best", 1) == first


def test_references_resolve(log: VersionLog[SelectionManifest]) -> None:
    for number in (1, 2, 3):
        log.commit("best", number, _manifest(number))
    assert _resolve(log, "best") == 3
    assert _resolve(log, "best@latest") == 3
    assert _resolve(log, "best@2") == 2
    assert _resolve(log, "selection:best@1") == 1


def test_unknown_references_name_what_exists(log: VersionLog[SelectionManifest]) -> None:
    log.commit("best", 1, _manifest(1))
    with pytest.raises(NotFoundError, match="did you mean 'best'"):
        _resolve(log, "bets")
    with pytest.raises(NotFoundError, match="these exist: best@1"):
        _resolve(log, "best@2")
    with pytest.raises(NotFoundError, match="no alias 'prod'"):
        _resolve(log, "best@prod")


def test_foreign_files_beside_the_versions_are_ignored(location: Location, log: VersionLog[SelectionManifest]) -> None:
    log.commit("best", 1, _manifest(1))
    for name in ("2.deleted.json", "03.json", "0.json", "x.json", "4.json.tmp", "-5.json"):
        location.write_bytes(f"selections/best/versions/{name}", b"{}")
    assert log.numbers("best") == [1]


def test_a_damaged_document_is_a_format_error_that_names_it(
    location: Location, log: VersionLog[SelectionManifest]
) -> None:
    location.write_bytes("selections/best/versions/1.json", b'{"name": "best"')
    with pytest.raises(FormatError, match=r"versions/1\.json is not a valid SelectionManifest"):
        log.read("best", 1)
