from __future__ import annotations

import pytest

from nait_store.errors import AlreadyExistsError, ConflictError, FormatError, InvalidInputError, NotFoundError
from nait_store.refs import Kind, parse_reference
from nait_store.schemas.selection import SelectionManifest
from nait_store.storage.labels import LabelKind
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.storage.versions import VersionLog, VersionNumbers


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
    with pytest.raises(NotFoundError, match="no alias or tag 'prod'"):
        _resolve(log, "best@prod")


def test_foreign_files_beside_the_versions_are_ignored(location: Location, log: VersionLog[SelectionManifest]) -> None:
    log.commit("best", 1, _manifest(1))
    for name in ("2.removed.json", "03.json", "0.json", "x.json", "4.json.tmp", "-5.json"):
        location.write_bytes(f"selections/best/versions/{name}", b"{}")
    assert log.numbers("best") == [1]


def test_a_damaged_document_is_a_format_error_that_names_it(
    location: Location, log: VersionLog[SelectionManifest]
) -> None:
    location.write_bytes("selections/best/versions/1.json", b'{"name": "best"')
    with pytest.raises(FormatError, match=r"versions/1\.json is not a document of a store"):
        log.read("best", 1)


def test_a_deleted_version_is_out_of_sight_and_its_number_stays_used(log: VersionLog[SelectionManifest]) -> None:
    for number in (1, 2, 3):
        log.commit("best", number, _manifest(number))
    log.delete("best", 3, "wrong seed")
    assert log.numbers("best") == [1, 2]
    assert _resolve(log, "best") == 2
    with pytest.raises(NotFoundError, match=r"best@3 was deleted on .* by "):
        _resolve(log, "best@3")
    committed = log.commit_next("best", lambda numbers: _manifest(numbers.last + 1) if numbers.latest == 2 else None)
    assert committed is not None
    assert committed.number == 4
    assert log.names() == ["best"]


def test_undelete_brings_a_version_back(log: VersionLog[SelectionManifest]) -> None:
    log.commit("best", 1, _manifest(1))
    log.delete("best", 1)
    log.delete("best", 1)  # as often as one likes
    assert log.names() == []
    with pytest.raises(NotFoundError, match="best@1 was deleted"):
        _resolve(log, "best")
    log.undelete("best", 1)
    log.undelete("best", 1)
    assert _resolve(log, "best") == 1
    assert log.deletion("best", 1) is None


def test_a_collected_version_cannot_be_brought_back(log: VersionLog[SelectionManifest]) -> None:
    log.commit("best", 1, _manifest(1))
    log.delete("best", 1)
    assert log.collect("best", 1)
    with pytest.raises(NotFoundError, match="best@1 was deleted, and collected by gc"):
        log.undelete("best", 1)
    assert log.numbers("best") == []


def test_what_is_not_deleted_cannot_be_collected(log: VersionLog[SelectionManifest]) -> None:
    log.commit("best", 1, _manifest(1))
    assert not log.collect("best", 1)
    assert log.numbers("best") == [1]


def test_undelete_gives_way_to_a_collection_that_began_meanwhile(
    location: Location, log: VersionLog[SelectionManifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.commit("best", 1, _manifest(1))
    log.delete("best", 1)
    delete = Location.delete
    collected = []

    def collect_first(self: Location, path: str) -> None:
        if not collected:
            collected.append(log.collect("best", 1))
        delete(self, path)

    monkeypatch.setattr(Location, "delete", collect_first)
    with pytest.raises(NotFoundError, match="collected by gc"):
        log.undelete("best", 1)
    assert collected == [True]
    assert log.listing("best").deleted == (1,)


@pytest.mark.parametrize("number", [2, 7])
def test_only_versions_that_exist_can_be_deleted(log: VersionLog[SelectionManifest], number: int) -> None:
    log.commit("best", 1, _manifest(1))
    with pytest.raises(NotFoundError, match=f"has no version {number}"):
        log.delete("best", number)


def test_commit_next_goes_on_top_of_the_writer_that_came_first(
    log: VersionLog[SelectionManifest],
) -> None:
    seen: list[tuple[int | None, int]] = []
    lost: list[SelectionManifest] = []

    def propose(numbers: VersionNumbers) -> SelectionManifest:
        number = numbers.last + 1
        seen.append((numbers.latest, number))
        if len(seen) <= 3:
            log.commit("best", number, _manifest(number))
        return _manifest(number)

    committed = log.commit_next("best", propose, lost.append)
    assert committed is not None
    assert committed.number == 4
    assert seen == [(None, 1), (1, 2), (2, 3), (3, 4)]
    assert [record.number for record in lost] == [1, 2, 3]


def test_commit_next_commits_nothing_where_nothing_is_proposed(log: VersionLog[SelectionManifest]) -> None:
    assert log.commit_next("best", lambda numbers: None) is None
    assert log.names() == []


def test_an_alias_moves_and_a_tag_stays(log: VersionLog[SelectionManifest]) -> None:
    for number in (1, 2):
        log.commit("best", number, _manifest(number))
    labels = log.labels
    labels.put(LabelKind.ALIAS, "best", "prod", 1)
    labels.put(LabelKind.TAG, "best", "paper", 1, "table 3")
    labels.put(LabelKind.ALIAS, "best", "prod", 2, "better")
    labels.put(LabelKind.ALIAS, "best", "prod", 2, "again")  # changes nothing
    with pytest.raises(AlreadyExistsError, match="'paper' is a tag of best@1 already"):
        labels.put(LabelKind.TAG, "best", "paper", 2)
    assert _resolve(log, "best@prod") == 2
    assert _resolve(log, "best@paper") == 1
    assert [(label.name, label.kind, label.version) for label in labels.of("best")] == [
        ("paper", LabelKind.TAG, 1),
        ("prod", LabelKind.ALIAS, 2),
    ]
    assert [(move.version, move.reason) for move in labels.history("best", "prod")] == [(1, ""), (2, "better")]


def test_aliases_and_tags_share_their_names(log: VersionLog[SelectionManifest]) -> None:
    log.commit("best", 1, _manifest(1))
    log.labels.put(LabelKind.TAG, "best", "paper", 1)
    with pytest.raises(AlreadyExistsError, match="choose another name, or remove the tag first"):
        log.labels.put(LabelKind.ALIAS, "best", "paper", 1)


def test_a_removed_label_is_gone_and_its_history_stays(log: VersionLog[SelectionManifest]) -> None:
    log.commit("best", 1, _manifest(1))
    log.labels.put(LabelKind.TAG, "best", "paper", 1)
    log.labels.remove(LabelKind.TAG, "best", "paper", "published")
    assert log.labels.of("best") == []
    assert [move.version for move in log.labels.history("best", "paper")] == [1, None]
    with pytest.raises(NotFoundError, match="no alias or tag 'paper'"):
        _resolve(log, "best@paper")
    with pytest.raises(NotFoundError, match="has no tag 'paper'"):
        log.labels.remove(LabelKind.TAG, "best", "paper")


@pytest.mark.parametrize("label", ["3", "latest", "../x", "A", "", "x" * 65, "a b", "a\n"])
def test_hostile_labels_are_refused(log: VersionLog[SelectionManifest], label: str) -> None:
    log.commit("best", 1, _manifest(1))
    with pytest.raises(InvalidInputError):
        log.labels.put(LabelKind.ALIAS, "best", label, 1)


def test_a_label_of_a_deleted_version_says_so(log: VersionLog[SelectionManifest]) -> None:
    for number in (1, 2):
        log.commit("best", number, _manifest(number))
    log.labels.put(LabelKind.ALIAS, "best", "prod", 2)
    log.delete("best", 2)
    with pytest.raises(NotFoundError, match="best@2 was deleted"):
        _resolve(log, "best@prod")
