"""Bundles by people who mean harm: every digest is made to fit what was changed, so that only the check can tell."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nait_store.schemas.record import document_bytes

CHUNK = "directions.zarr/directions/c/0/0"
METADATA = "directions.zarr/directions/zarr.json"
SECRET = "../" * 12 + "tmp/owned"


@dataclass
class Forgery:
    """A bundle of one version, taken apart.

    Attributes
    ----------
    publication, record, registry
        The documents, as JSON values.
    files
        Every other file of the payload, and ``reference.json``, by path.
    """

    publication: dict[str, Any]
    record: dict[str, Any]
    registry: dict[str, Any]
    files: dict[str, bytes]
    extra: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, bundle: Path) -> Forgery:
        """Take a bundle apart."""
        with zipfile.ZipFile(bundle) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        (document,) = (name for name in entries if name.startswith("profiles/"))
        publication = json.loads(entries[document])
        listed = [*publication["files"], publication["reference"]["file"]]
        files = {file["path"]: entries[f"objects/{file['sha256'][:2]}/{file['sha256']}"] for file in listed}
        return cls(publication, json.loads(files.pop("profile.json")), json.loads(entries["registry.json"]), files)

    def entries(self) -> dict[str, bytes]:
        """Put it together again, every digest anew; what ``publication`` and ``record`` say besides is kept."""
        payload = {path: data for path, data in self.files.items() if path != "reference.json"}
        self.record.setdefault("_files", [listed(path, data) for path, data in payload.items()])
        self.record["files"] = self.record.pop("_files")
        record = self.record.pop("_bytes", None) or document_bytes(self.record)
        files = [listed("profile.json", record), *self.record["files"]]
        self.publication.setdefault("_files", files)
        self.publication["files"] = self.publication.pop("_files")
        self.publication.setdefault("_record_sha256", sha256(record))
        self.publication["record_sha256"] = self.publication.pop("_record_sha256")
        if "reference.json" in self.files and "_reference" not in self.publication:
            self.publication["reference"]["file"] = listed("reference.json", self.files["reference.json"])
        self.publication.pop("_reference", None)
        place = self.publication.pop("_place", "profiles/math/versions/2.json")
        document = self.publication.pop("_bytes", None) or document_bytes(self.publication)
        objects = [record, *self.files.values()]
        return {
            "registry.json": document_bytes(self.registry),
            **{f"objects/{sha256(data)[:2]}/{sha256(data)}": data for data in objects},
            place: document,
            **self.extra,
        }

    def bytes(self) -> bytes:
        """The bundle."""
        return packed(self.entries())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def listed(path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, "size_bytes": len(data), "sha256": sha256(data)}


def packed(entries: Mapping[str, bytes], change: Callable[[zipfile.ZipInfo], object] = lambda _: None) -> bytes:
    """Put entries into a .zip, each as ``change`` makes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            change(entry)
            archive.writestr(entry, data)
    return buffer.getvalue()


Attack = Callable[[Forgery], bytes]
ATTACKS: dict[str, tuple[str, Attack]] = {}
"""Name → part of the reason that must be given, and what makes the bundle."""


def attack(name: str, reason: str) -> Callable[[Attack], Attack]:
    def keep(make: Attack) -> Attack:
        assert name not in ATTACKS
        ATTACKS[name] = reason, make
        return make

    return keep


def changes(part: str, name: str, reason: str, change: Mapping[str, Any]) -> None:
    """An attack that sets fields of the publication, the record or ``registry.json``."""

    def make(forgery: Forgery) -> bytes:
        getattr(forgery, part).update(change)
        return forgery.bytes()

    attack(name, reason)(make)


def with_entry(name: str, reason: str, entry: str, data: bytes = b"owned") -> None:
    """An attack that adds an entry."""
    attack(name, reason)(lambda forgery: packed({**forgery.entries(), entry: data}))


# --- the file itself -------------------------------------------------------------------------------------------------

attack("not a zip file", "does not end as a bundle")(lambda _: b"#!/bin/sh\nrm -rf /\n" * 10)
attack("empty file", "0 bytes")(lambda _: b"")
attack("cut off", "does not end as a bundle")(lambda forgery: forgery.bytes()[:-40])
attack("something before it", "between its parts")(lambda forgery: b"MZ" + forgery.bytes())
attack("something after it", "does not end as a bundle")(lambda forgery: forgery.bytes() + b"\0")
attack("end of a directory and nothing else", "no shared registry")(lambda _: packed({}))


@attack("zip bomb", "compressed")
def _(forgery: Forgery) -> bytes:
    entries = forgery.entries()

    def deflate(entry: zipfile.ZipInfo) -> None:
        entry.compress_type = zipfile.ZIP_DEFLATED

    bomb = bytes(50 << 20)
    return packed({**entries, f"objects/{sha256(bomb)[:2]}/{sha256(bomb)}": bomb}, deflate)


@attack("entry that claims to be a thousand times its size", "compressed")
def _(forgery: Forgery) -> bytes:
    data = bytearray(forgery.bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 1 << 31)
    return bytes(data)


@attack("entries in one another", "does not follow")
def _(forgery: Forgery) -> bytes:
    data = bytearray(forgery.bytes())
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    return bytes(data)


@attack("link", "is a link")
def _(forgery: Forgery) -> bytes:
    def link(entry: zipfile.ZipInfo) -> None:
        if entry.filename.startswith("objects/"):
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16

    return packed(forgery.entries(), link)


@attack("device", "is a link or something else")
def _(forgery: Forgery) -> bytes:
    def device(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = (stat.S_IFCHR | 0o666) << 16

    return packed(forgery.entries(), device)


@attack("encrypted entry", "is encrypted")
def _(forgery: Forgery) -> bytes:
    data = bytearray(forgery.bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    return bytes(data)


@attack("checksum that does not fit", "Bad CRC")
def _(forgery: Forgery) -> bytes:
    data = bytearray(forgery.bytes())
    for signature, place in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        at = data.index(signature)
        data[at + place : at + place + 4] = b"\1\2\3\4"
    return bytes(data)


@attack("other name in the header than in the directory", "differ")
def _(forgery: Forgery) -> bytes:
    data = forgery.bytes()
    at = data.index(b"registry.json")
    return data[:at] + b"registry.jsoN" + data[at + 13 :]


@attack("more entries than a bundle may have", "entries in")
def _(forgery: Forgery) -> bytes:
    hashes = (sha256(str(i).encode()) for i in range(5_000))
    return packed({**forgery.entries(), **{f"objects/{digest[:2]}/{digest}": b"" for digest in hashes}})


@attack("same entry twice", "twice")
def _(forgery: Forgery) -> bytes:
    data = packed({**forgery.entries(), "registry.jsom": b"{}"})
    return data.replace(b"registry.jsom", b"registry.json")


@attack("part of several files", "one part of several")
def _(forgery: Forgery) -> bytes:
    data = bytearray(forgery.bytes())
    at = data.rindex(b"PK\x05\x06")
    data[at + 4] = 1
    return bytes(data)


with_entry("name that leaves the folder", "no file of a registry", SECRET)
with_entry("absolute name", "no file of a registry", "/tmp/owned")
with_entry("name of another system", "no file of a registry", "C:\\owned.exe")
with_entry("backslashes", "no file of a registry", "objects\\..\\..\\owned")
with_entry("folder", "no file of a registry", "objects/aa/")
with_entry("name that differs in case", "no file of a registry", "REGISTRY.JSON")
with_entry("pickle beside the rest", "no file of a registry", "profiles/math/evil.pkl", b"\x80\x04c")
with_entry("store.json", "no file of a registry", "store.json", b"{}")
with_entry("object in another's folder", "no file of a registry", f"objects/aa/{'b' * 64}")
with_entry("object that nothing needs", "no version in it needs", f"objects/bb/{'b' * 64}")
with_entry("version 0", "no file of a registry", "profiles/math/versions/0.json")
with_entry("profile of a name that is none", "no file of a registry", "profiles/../versions/1.json")


@attack("name with a NUL", "no file of a registry")
def _(forgery: Forgery) -> bytes:
    return packed({**forgery.entries(), "registry.json?.exe": b"owned"}).replace(b"json?.exe", b"json\0.exe")


@attack("file whose bytes are others than its name says", "differs from the SHA-256")
def _(forgery: Forgery) -> bytes:
    entries = forgery.entries()
    chunk = next(name for name in entries if name.endswith(sha256(forgery.files[CHUNK])))
    return packed({**entries, chunk: forgery.files[CHUNK][::-1]})


@attack("missing file", "is missing")
def _(forgery: Forgery) -> bytes:
    entries = forgery.entries()
    return packed({name: data for name, data in entries.items() if not name.endswith(sha256(forgery.files[CHUNK]))})


@attack("no registry.json", "no shared registry")
def _(forgery: Forgery) -> bytes:
    return packed({name: data for name, data in forgery.entries().items() if name != "registry.json"})


@attack("no version", "holds no profile")
def _(forgery: Forgery) -> bytes:
    return packed({"registry.json": forgery.entries()["registry.json"]})


# --- registry.json and the publication -------------------------------------------------------------------------------

changes("registry", "registry of a later format", "newer release", {"format_version": 99})
changes("registry", "registry with an unknown flag", "unknown features", {"reader_features": ["later"]})
changes("publication", "version with an unknown flag", "does not know", {"reader_features": ["later"]})
changes("publication", "version of another number", "is about math@3", {"number": 3})
changes("publication", "version of another name", "is about code@2", {"name": "code"})
changes("publication", "version of a name that leaves", "not a valid Publication: name", {"name": "../../owned"})
changes("publication", "negative number", "not a valid Publication: number", {"number": -1})
changes("publication", "other record than listed", "does not list the profile.json", {"_record_sha256": "0" * 64})
changes("publication", "digest that leaves", "not a valid Publication", {"_record_sha256": SECRET})
changes("publication", "other directions than the record", "other directions", {"directions_sha256": "0" * 64})
changes("publication", "other recipe than the record", "another recipe", {"recipe_sha256": "0" * 64})
changes("publication", "document that holds no digest", "not a document", {"_bytes": b'{"name":"math"}\n'})
changes("publication", "huge document", "more than the", {"message": "x" * (2 << 20)})
changes("publication", "deep document", "not a document", {"_bytes": b"[" * 100_000})


@attack("document changed after it was written", "differs from the SHA-256")
def _(forgery: Forgery) -> bytes:
    entries = forgery.entries()
    document = "profiles/math/versions/2.json"
    return packed({**entries, document: entries[document].replace(b'"math"', b'"mash"')})


def listing(name: str, reason: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """An attack that changes what the publication and the record list."""

    @attack(name, reason)
    def _(forgery: Forgery) -> bytes:
        payload = {path: data for path, data in forgery.files.items() if path != "reference.json"}
        files = [listed(path, data) for path, data in payload.items()]
        change(files)
        forgery.record["_files"] = files
        return forgery.bytes()


FAKE = {"size_bytes": 5, "sha256": sha256(b"owned")}
listing("lists a path that leaves", "files", lambda files: files.append({"path": SECRET, **FAKE}))
listing("lists an absolute path", "files", lambda files: files.append({"path": "/tmp/owned", **FAKE}))
listing("lists a pickle", "no file of a profile", lambda files: files.append({"path": "directions.pkl", **FAKE}))
listing("lists a program", "no file of a profile", lambda files: files.append({"path": "directions.zarr/a.so", **FAKE}))
listing("lists a file twice", "twice", lambda files: files.append(files[0]))
listing("lists a file of a petabyte", "more than the", lambda files: files[0].update(size_bytes=10**15))
listing("lists a file of less than nothing", "files", lambda files: files[0].update(size_bytes=-1))
listing("lists a thousand files", "files, more than", lambda files: files.extend([files[0]] * 1_000))
listing("lists another size than the file has", "its record says", lambda files: files[0].update(size_bytes=7))


@attack("lists no numbers", "does not list the file")
def _(forgery: Forgery) -> bytes:
    forgery.files = {"reference.json": forgery.files["reference.json"]}
    return forgery.bytes()


# --- profile.json ----------------------------------------------------------------------------------------------------

changes("record", "record of another capture", "capture id", {"capture_id": "f" * 32})
changes("record", "layers in disorder", "ascending", {"layers": [1, 0]})
changes("record", "layers below zero", "ascending", {"layers": [-1, 0]})
changes("record", "no layers", "ascending", {"layers": []})
changes("record", "statistics of other layers", "statistics", {"layers": [0, 5]})
changes("record", "a trillion neurons", "larger than", {"n_neurons": 10**12})
changes("record", "no neurons", "n_neurons", {"n_neurons": 0})
changes("record", "offset that is not there", "does not list the file", {"has_offset": True})
changes("record", "no record", "not a document", {"_bytes": b"null"})
changes("record", "record with a method of tomorrow", "not a valid ProfileRecord", {"recipe": {"method": "magic"}})


def odd_number(name: str, text: bytes) -> None:
    @attack(name, "NaN or infinity|not a valid ProfileRecord")
    def _(forgery: Forgery) -> bytes:
        mark = 1234.5678
        forgery.record["statistics"][0]["sign_margin"] = mark
        forgery.record["_files"] = [
            listed(path, data) for path, data in forgery.files.items() if path != "reference.json"
        ]
        forgery.record["files"] = forgery.record["_files"]
        whole = document_bytes({k: v for k, v in forgery.record.items() if k != "_files"})
        undigested = whole.replace(str(mark).encode(), text)
        undigested = undigested[:12] + b"0" * 64 + undigested[76:]
        forgery.record["_bytes"] = undigested[:12] + sha256(undigested).encode() + undigested[76:]
        return forgery.bytes()


odd_number("statistics that are not a number", b"NaN")
odd_number("statistics that are infinite", b"Infinity")
odd_number("statistics too large for a float", b"1e999")

# --- the numbers -----------------------------------------------------------------------------------------------------


def numbers(name: str, reason: str, change: Callable[[Any], bytes]) -> None:
    """An attack that changes the chunk."""

    @attack(name, reason)
    def _(forgery: Forgery) -> bytes:
        forgery.files[CHUNK] = change(np.frombuffer(forgery.files[CHUNK], "<f4").copy())
        return forgery.bytes()


def filled(value: float) -> Callable[[Any], bytes]:
    def fill(values: Any) -> bytes:
        values[3] = value
        return bytes(values.tobytes())

    return fill


numbers("directions that are not a number", "NaN or infinity", filled(float("nan")))
numbers("directions that are infinite", "NaN or infinity", filled(float("-inf")))
numbers("other directions", "SHA-256", filled(0.5))
numbers("too few directions", "44 bytes instead of 48", lambda values: bytes(values.tobytes()[:-4]))
numbers("too many directions", "more than the 48 allowed", lambda values: bytes(values.tobytes()) * 3)
numbers("a pickle for directions", "more than the 48 allowed", lambda _: b"\x80\x04cos\nsystem\n" * 40)


def metadata(name: str, change: Mapping[str, Any]) -> None:
    """An attack that changes the Zarr metadata."""

    @attack(name, "is not of the form")
    def _(forgery: Forgery) -> bytes:
        forgery.files[METADATA] = json.dumps(json.loads(forgery.files[METADATA]) | change).encode()
        return forgery.bytes()


metadata("codec that unpickles", {"codecs": [{"name": "numcodecs.pickle"}]})
metadata("codec that grows", {"codecs": [{"name": "gzip", "configuration": {"level": 9}}]})
metadata("objects for numbers", {"data_type": "object"})
metadata("shape of a trillion rows", {"shape": [10**12, 6]})
metadata("chunks elsewhere", {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "../"}}})
metadata("transformer of storage", {"storage_transformers": [{"name": "reference", "target": "/etc/passwd"}]})


@attack("metadata that is none", "not valid Zarr v3 metadata")
def _(forgery: Forgery) -> bytes:
    forgery.files[METADATA] = b"[" * 50_000
    return forgery.bytes()


# --- card and reference samples --------------------------------------------------------------------------------------


def document(path: str, name: str, reason: str, change: Callable[[dict[str, Any]], object]) -> None:
    """An attack that changes a JSON document of the payload."""

    @attack(name, reason)
    def _(forgery: Forgery) -> bytes:
        fields = json.loads(forgery.files[path])
        change(fields)
        forgery.files[path] = document_bytes(fields)
        return forgery.bytes()


document("card.json", "card of more samples", "more samples", lambda card: card.update(n_samples=10**9))
document("card.json", "card of other layers", "other layers", lambda card: card["layers"][0].update(layer=7))
document("card.json", "card with an impossible cosine", "not a valid QualityCard",
         lambda card: card["layers"][0].update(halves_cosine=17.0))  # fmt: skip
document("reference.json", "too few samples", "15 samples", lambda found: found["content_sha256"].pop())
document("reference.json", "samples in disorder", "ascending order", lambda found: found["content_sha256"].reverse())
SAMPLE = {"sample_id": "x", "content_sha256": "0" * 64, "record": "{}"}
document("reference.json", "records where hashes were announced", "contradicts the policy",
         lambda found: found.update(samples=[SAMPLE]))  # fmt: skip


@attack("reference samples elsewhere", "reference samples lie in")
def _(forgery: Forgery) -> bytes:
    forgery.publication["_reference"] = True
    forgery.publication["reference"]["file"] = listed("directions.zarr/zarr.json", forgery.files["reference.json"])
    return forgery.bytes()


@attack("reference samples that nothing announces", "contradict the files")
def _(forgery: Forgery) -> bytes:
    forgery.publication["reference"]["policy"] = "none"
    return forgery.bytes()


@attack("samples of another profile in full", "other samples than the profile")
def _(forgery: Forgery) -> bytes:
    fields = json.loads(forgery.files["reference.json"])
    hashes = fields["content_sha256"]
    fields["samples"] = [{"sample_id": f"x{i:02}", "content_sha256": h, "record": "{}"} for i, h in enumerate(hashes)]
    forgery.files["reference.json"] = document_bytes(fields)
    forgery.publication["reference"]["policy"] = "full"
    return forgery.bytes()
