"""Profiles exported to files and imported from them, through the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import nait_store
from nait_store.errors import AlreadyExistsError, InvalidInputError, NotFoundError, UnsupportedVersionError
from nait_store.schemas.store_record import SOURCELESS_FEATURE
from nait_store.testing.stores import build_set

UNIT = np.eye(2, 8, dtype=np.float32)


@pytest.fixture
def exported(store: nait_store.Store, tmp_path: Path) -> str:
    store.profiles.build("math", source="maths", against="pool")
    return store.profiles.export("math", str(tmp_path / "math.safetensors")).url


@pytest.fixture
def foreign(tmp_path: Path) -> str:
    save_file({"directions": UNIT}, tmp_path / "foreign.safetensors")
    return str(tmp_path / "foreign.safetensors")


def test_an_imported_profile_gives_the_scores_of_the_exported_one(store: nait_store.Store, exported: str) -> None:
    store.profiles.import_("copy", exported)
    one, other = (
        store.sql("SELECT sample_id, score FROM alignment('pool', ?) ORDER BY sample_id", [name]).fetchall()
        for name in ("math", "copy")
    )
    assert one == other


def test_a_profile_goes_to_a_store_that_knows_nothing_of_it(exported: str, tmp_path: Path) -> None:
    other = nait_store.open(str(tmp_path / "other"), create=True)
    build_set(other.location, "candidates", 10, first=900)
    profile, _ = other.profiles.import_("math", exported, message="from the other team")
    assert profile.record.model == "./fake-model"
    assert other.profiles.check("math", set="candidates").applies
    assert other.profiles.history("math")[0].message == "from the other team"
    assert other.verify().errors == ()
    (summary,) = other.profiles.list()
    assert (summary.source, summary.n_samples, summary.made_from) == (None, None, profile.record.made_from)
    assert [one.reference for one in other.profiles.search("safetensors")] == ["math@1"]


def test_an_export_never_replaces_a_file_unless_told(store: nait_store.Store, exported: str) -> None:
    before = Path(exported).read_bytes()
    with pytest.raises(AlreadyExistsError):
        store.profiles.export("math", exported)
    assert Path(exported).read_bytes() == before
    store.profiles.build("math", source="maths")
    report = store.profiles.export("math@2", exported, overwrite=True)
    assert report.size_bytes == Path(exported).stat().st_size != len(before)


def test_an_export_that_fails_leaves_no_file(store: nait_store.Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        store.profiles.export("nothing", str(tmp_path / "x.npz"))
    store.profiles.build("math", source="maths")
    with pytest.raises(InvalidInputError, match="does not say its format"):
        store.profiles.export("math", str(tmp_path / "x.json"))
    assert not list(tmp_path.glob("*x.*"))


@pytest.mark.parametrize("like", ["pool", "set:pool", "pool@1", "profile:math", "profile:math@1"])
def test_a_set_or_profile_says_what_foreign_directions_are_of(store: nait_store.Store, foreign: str, like: str) -> None:
    store.profiles.build("math", source="maths")
    profile, _ = store.profiles.import_("foreign", foreign, like=like)
    assert profile.record.capture_id == store.sets.open("pool").record.capture_id
    assert profile.directions().tobytes() == UNIT.tobytes()


def test_a_name_of_both_asks_for_the_kind(store: nait_store.Store, foreign: str) -> None:
    store.profiles.build("maths", source="maths")
    with pytest.raises(InvalidInputError, match="a set and a profile") as caught:
        store.profiles.import_("foreign", foreign, like="maths")
    assert "'set:maths' or 'profile:maths'" in str(caught.value.next_step)


def test_a_name_of_neither_suggests_near_ones(store: nait_store.Store, foreign: str) -> None:
    with pytest.raises(NotFoundError, match="no set or profile 'pol'") as caught:
        store.profiles.import_("foreign", foreign, like="pol")
    assert "'pool'" in str(caught.value.next_step)


def test_a_missing_file_suggests_near_names(store: nait_store.Store, foreign: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        store.profiles.import_("foreign", foreign.replace("foreign.", "forein."), like="pool")
    assert "foreign.safetensors" in str(caught.value.next_step)


def test_releases_that_do_not_know_imports_refuse_the_store(
    store: nait_store.Store, foreign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.record.reader_features == ()
    store.profiles.import_("foreign", foreign, like="pool")
    again = nait_store.open(store.url)
    assert again.record.reader_features == again.record.writer_features == (SOURCELESS_FEATURE,)
    monkeypatch.setattr("nait_store.schemas.store_record.KNOWN_READER_FEATURES", frozenset({"dtypes", "projections"}))
    with pytest.raises(UnsupportedVersionError, match="sourceless"):
        nait_store.open(store.url)


def test_a_build_alone_asks_nothing_of_earlier_releases(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    assert nait_store.open(store.url).record.reader_features == ()


def test_an_imported_profile_has_no_samples_to_compare(store: nait_store.Store, exported: str) -> None:
    store.profiles.import_("copy", exported)
    diff = store.profiles.diff("math", "copy")
    assert "copy@1 was made from the file" in diff.unknown
    assert list(diff.cosines.values()) == pytest.approx([1.0, 1.0])
    assert diff.settings["method"] == ("contrastive", "imported")


def test_an_imported_profile_is_selected_by_and_explained_in_sql(store: nait_store.Store, exported: str) -> None:
    store.profiles.import_("copy", exported)
    assert store.select("pool", profile="copy", top=3).n_selected == 3
    row = store.sql("SELECT method, source, n_samples, min_sign_margin, made_from FROM profiles WHERE profile = 'copy'")
    assert row.fetchone()[:4] == ("imported", None, None, None)  # type: ignore[index]
    operations = store.sql("SELECT operation FROM versions WHERE kind = 'profile' ORDER BY name").fetchall()
    assert operations == [("import",), ("build",)]
