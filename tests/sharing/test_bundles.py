"""A bundle carries profiles in one file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError
from nait_store.schemas.sharing import ReferencePolicy
from tests.sharing.conftest import Teams, new_store

Digests = Callable[[Any], dict[str, str]]


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "math.zip")


def test_what_is_in_a_bundle_arrives(teams: Teams, out: str) -> None:
    report = teams.ours.remotes.export_bundle(["math@1", "math@2"], out)
    assert (report.references, report.size_bytes) == (("math@1", "math@2"), Path(out).stat().st_size)
    pulled = teams.theirs.remotes.import_bundle(out)
    assert [one.profile.reference for one in pulled] == ["math@1", "math@2"]
    for number in (1, 2):
        mine, theirs = (store.profiles.open(f"math@{number}") for store in (teams.ours, teams.theirs))
        np.testing.assert_array_equal(mine.directions(), theirs.directions())
        assert mine.record == theirs.record
    assert teams.theirs.verify().findings == ()


def test_origin_names_the_bundle(teams: Teams, out: str) -> None:
    teams.ours.remotes.export_bundle("math", out, reference_samples="full")
    (pulled,) = teams.theirs.remotes.import_bundle(out)
    assert pulled.profile.manifest.origin is not None
    assert pulled.profile.manifest.origin.url == out
    assert pulled.policy is ReferencePolicy.FULL


def test_importing_again_changes_nothing(teams: Teams, out: str, digests: Digests) -> None:
    teams.ours.remotes.export_bundle("math", out)
    teams.theirs.remotes.import_bundle(out)
    before = digests(teams.theirs)
    (again,) = teams.theirs.remotes.import_bundle(out)
    assert not again.created
    assert digests(teams.theirs) == before


def test_import_as_takes_the_next_number_of_a_name(teams: Teams, out: str) -> None:
    teams.ours.remotes.export_bundle("math", out)
    (pulled,) = teams.theirs.remotes.import_bundle(out, as_name="sums")
    assert pulled.profile.reference == "sums@1"
    teams.ours.remotes.export_bundle(["math@1", "math@2"], out, overwrite=True)
    with pytest.raises(InvalidInputError, match="2 versions, which cannot all be"):
        teams.theirs.remotes.import_bundle(out, as_name="sums")


def test_another_profile_of_this_number_conflicts(teams: Teams, out: str, tmp_path: Path) -> None:
    teams.ours.remotes.export_bundle("math@1", out)
    other = new_store(str(tmp_path / "other"), seed=7)
    other.profiles.build("math", source="gsm8k", method="mean")
    with pytest.raises(ConflictError, match="another profile than math@1 here"):
        other.remotes.import_bundle(out)


def test_existing_file_is_kept_unless_told(teams: Teams, out: str) -> None:
    Path(out).write_text("mine")
    with pytest.raises(AlreadyExistsError):
        teams.ours.remotes.export_bundle("math", out)
    assert Path(out).read_text() == "mine"
    teams.ours.remotes.export_bundle("math", out, overwrite=True)
    assert zipfile.is_zipfile(out)


def test_files_that_two_versions_share_lie_in_it_once(teams: Teams, out: str) -> None:
    teams.ours.remotes.export_bundle(["math@1", "math@2", "math@1"], out)
    names = zipfile.ZipFile(out).namelist()
    assert len(names) == len(set(names))
    assert sum(name.startswith("profiles/") for name in names) == 2


def test_bundle_is_an_ordinary_zip_file_that_nothing_was_compressed_in(teams: Teams, out: str) -> None:
    teams.ours.remotes.export_bundle("math", out)
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_bundles_are_named_by_a_purge(teams: Teams, out: str) -> None:
    teams.ours.remotes.export_bundle("math@2", out)
    sample = teams.ours.sql("SELECT sample_id FROM samples('gsm8k') LIMIT 1").fetchall()[0][0]
    assert any(f"math@2 of {out}" in text for text in teams.ours.purge("gsm8k", ids=[sample]).remains)


def test_missing_file_and_no_profiles_are_errors(teams: Teams, out: str) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        teams.theirs.remotes.import_bundle(out)
    with pytest.raises(InvalidInputError, match="no profiles"):
        teams.ours.remotes.export_bundle([], out)


def test_bundle_in_a_bucket_is_read_there(teams: Teams, object_store: Any) -> None:
    url = f"{object_store.new_url()}/math.zip"
    teams.ours.remotes.export_bundle("math", url)
    assert teams.theirs.remotes.import_bundle(url)[0].created


def test_commands_say_what_they_did(teams: Teams, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    from nait_store.cli.main import main

    def run(store: nait_store.Store, *arguments: str) -> str:
        assert main(("--store", store.url, *arguments)) == 0
        return capsys.readouterr().out

    shown = run(teams.ours, "export-bundle", "math@1", "math@2", "--out", out)
    assert shown.startswith(f"math@1, math@2 written to {out}, ")
    assert "with it goes: hashes of its in-domain samples" in shown
    assert f"math@1 pulled from {out}: 5 files fetched" in run(teams.theirs, "import-bundle", out)
    found = json.loads(run(teams.theirs, "import-bundle", out, "--json"))
    assert [(one["reference"], one["created"]) for one in found] == [("math@1", False), ("math@2", False)]


def test_bundle_of_bundles_is_none(teams: Teams, out: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w"):
        pass
    Path(out).write_bytes(buffer.getvalue())
    with pytest.raises(NotFoundError, match="no shared registry"):
        teams.theirs.remotes.import_bundle(out)
