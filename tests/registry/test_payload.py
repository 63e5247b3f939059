"""Payloads from elsewhere are hostile input: each of these is refused, with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nait_store.errors import CorruptChunkError, FormatError
from nait_store.refs import Kind
from nait_store.registry import payload as payload_module
from nait_store.registry.payload import ProfileArrays, write_arrays
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.registry.recipes import choose_recipe
from nait_store.schemas.profile import ProfileManifest, ProfileRecord
from nait_store.schemas.record import document_bytes
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.storage.versions import VersionLog
from nait_store.testing.stores import build_set

CHUNK = "directions.zarr/directions/c/0/0"
METADATA = "directions.zarr/directions/zarr.json"


@pytest.fixture
def profile(local: Location) -> Profile:
    source = build_set(local, "gsm8k", 20, 2, 6, mean=np.ones(6, np.float32))
    return ProfileRegistry(local).build("math", source, recipe=choose_recipe())[0]


def forge(
    location: Location,
    profile: Profile,
    *,
    files: dict[str, bytes] | None = None,
    change: Callable[[dict[str, Any]], object] = lambda record: None,
) -> Profile:
    """Commit a copy of a payload with other files and fields, every outer digest made to fit."""
    payload = new_ulid()
    folder = layout.payload_folder(Kind.PROFILE, "math", payload)
    record = json.loads(profile.record.to_json_bytes())
    listed = []
    for file in record["files"]:
        data = location.read_bytes(f"{profile.folder}/{file['path']}")
        data = (files or {}).get(file["path"], data)
        location.write_bytes(f"{folder}/{file['path']}", data)
        listed.append({"path": file["path"], "size_bytes": len(data), "sha256": sha256_bytes(data)})
    record["files"] = listed
    change(record)
    data = document_bytes(record)
    location.write_bytes(f"{folder}/profile.json", data)
    number = ProfileRegistry(location).numbers("math")[-1] + 1
    manifest = ProfileManifest(
        name="math",
        number=number,
        payload=payload,
        record_sha256=sha256_bytes(data),
        recipe_sha256=profile.manifest.recipe_sha256,
        provenance=current_provenance(),
    )
    VersionLog(location, Kind.PROFILE, ProfileManifest).commit("math", number, manifest)
    return ProfileRegistry(location).open(f"math@{number}")


def test_forgery_without_changes_is_accepted(local: Location, profile: Profile) -> None:
    np.testing.assert_array_equal(forge(local, profile).directions(), profile.directions())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(local: Location, profile: Profile, value: float) -> None:
    array = profile.directions().copy()
    array[1, 2] = value
    with pytest.raises(FormatError, match="NaN or infinity"):
        forge(local, profile, files={CHUNK: array.tobytes()}).directions()


def test_other_numbers_are_refused(local: Location, profile: Profile) -> None:
    array = profile.directions()[::-1].copy()
    with pytest.raises(CorruptChunkError, match="SHA-256"):
        forge(local, profile, files={CHUNK: array.tobytes()}).directions()


def test_truncated_chunk_is_refused(local: Location, profile: Profile) -> None:
    data = profile.directions().tobytes()[:-4]
    with pytest.raises(CorruptChunkError, match="44 bytes instead of 48"):
        forge(local, profile, files={CHUNK: data}).directions()


def test_oversized_chunk_is_refused_before_it_is_read(local: Location, profile: Profile) -> None:
    with pytest.raises(FormatError, match="more than the 48 allowed"):
        forge(local, profile, files={CHUNK: bytes(4096)}).directions()


def test_file_that_differs_from_its_listed_size_is_refused(local: Location, profile: Profile) -> None:
    local.write_bytes(f"{profile.folder}/{CHUNK}", bytes(4096))
    with pytest.raises(CorruptChunkError, match="4,096 bytes"):
        ProfileRegistry(local).open("math").directions()


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, 7]},
        {"shape": [10**12, 6]},
        {"shape": "big"},
        {"data_type": "float64"},
        {"data_type": "object"},
        {"codecs": [{"name": "gzip", "configuration": {"level": 1}}]},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}]},
        {"codecs": [{"name": "numcodecs.pickle"}]},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 6]}}},
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "../"}}},
        {"storage_transformers": [{"name": "evil"}]},
        {"zarr_format": 2},
        {"node_type": "group"},
        {"dimension_names": None},
    ],
)
def test_metadata_of_another_form_is_refused(local: Location, profile: Profile, change: dict[str, Any]) -> None:
    metadata = json.loads(local.read_bytes(f"{profile.folder}/{METADATA}")) | change
    with pytest.raises(FormatError, match=r"zarr\.json is not of the form"):
        forge(local, profile, files={METADATA: json.dumps(metadata).encode()}).directions()


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b"null", b"\xff\xfe", b"[" * 50_000])
def test_metadata_that_is_not_metadata_is_refused(local: Location, profile: Profile, document: bytes) -> None:
    with pytest.raises(FormatError, match="not valid Zarr v3 metadata"):
        forge(local, profile, files={METADATA: document}).directions()


def test_huge_metadata_is_refused(local: Location, profile: Profile) -> None:
    with pytest.raises(FormatError, match="more than the 65,536 allowed"):
        forge(local, profile, files={METADATA: b" " * 100_000}).directions()


def test_huge_shape_is_refused_before_anything_is_allocated(local: Location, profile: Profile) -> None:
    with pytest.raises(FormatError, match="larger than"):
        forge(local, profile, change=lambda record: record.update(n_neurons=10**12)).directions()


def test_offset_that_is_promised_and_absent_is_refused(local: Location, profile: Profile) -> None:
    with pytest.raises(FormatError, match=r"does not list the file directions\.zarr/offset"):
        forge(local, profile, change=lambda record: record.update(has_offset=True)).directions()


@pytest.mark.parametrize("layers", [[], [1, 0], [0, 0], [-1, 0]])
def test_disordered_layers_are_refused(local: Location, profile: Profile, layers: list[int]) -> None:
    with pytest.raises(FormatError, match="ascending"):
        forge(local, profile, change=lambda record: record.update(layers=layers))


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../secret", "a/./b", "a\\b", ""])
def test_paths_that_leave_the_payload_are_refused(local: Location, profile: Profile, path: str) -> None:
    def add(record: dict[str, Any]) -> None:
        record["files"].append({"path": path, "size_bytes": 1, "sha256": "0" * 64})

    with pytest.raises(FormatError, match="files"):
        forge(local, profile, change=add)


def test_record_of_another_profile_is_refused(local: Location, profile: Profile) -> None:
    with pytest.raises(FormatError, match="belongs to another profile"):
        forge(local, profile, change=lambda record: record.update(name="code"))


def test_changed_record_is_refused(local: Location, profile: Profile) -> None:
    path = f"{profile.folder}/profile.json"
    local.write_bytes(path, local.read_bytes(path).replace(b'"mean"', b'"last"'))
    with pytest.raises(CorruptChunkError, match=r"differs from the SHA-256 in version math@1"):
        ProfileRegistry(local).open("math")


def test_huge_record_is_refused(local: Location, profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nait_store.registry.profiles.MAX_RECORD_BYTES", 100)
    with pytest.raises(FormatError, match="more than the 100 allowed"):
        ProfileRegistry(local).open("math")


def test_written_arrays_read_back_equal(local: Location, profile: Profile) -> None:
    rng = np.random.default_rng(0)
    arrays = ProfileArrays(*(rng.standard_normal((2, 6)).astype(np.float32) for _ in range(2)))
    files = write_arrays(local, "elsewhere", arrays, (0, 1), {"note": "test"})
    changes = {"files": files, "has_offset": True, "directions_sha256": arrays.digest((0, 1))}
    record: ProfileRecord = profile.record.model_copy(update=changes)
    found = payload_module.read_arrays(local, "elsewhere", record)
    np.testing.assert_array_equal(found.directions, arrays.directions)
    np.testing.assert_array_equal(found.offset, arrays.offset)
