"""Signatures say who vouches for a version: forged ones are refused, missing ones where they are required."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

import nait_store
from nait_store.errors import (
    AlreadyExistsError,
    FormatError,
    InvalidInputError,
    MissingExtraError,
    NotFoundError,
    UntrustedError,
)
from nait_store.schemas.record import canonical_json, document_bytes
from tests.sharing.conftest import Teams

Digests = Callable[[Any], dict[str, str]]
DOCUMENT = "profiles/math/versions/1.json"


def write_key(folder: Path, name: str, *, openssh: bool = True) -> Path:
    """A key pair as ssh-keygen, or openssl, writes it."""
    key = ed25519.Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.OpenSSH if openssh else serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (folder / name).write_bytes(private)
    kinds = serialization.Encoding, serialization.PublicFormat
    if openssh:
        public = key.public_key().public_bytes(kinds[0].OpenSSH, kinds[1].OpenSSH) + f" {name}@lab\n".encode()
    else:
        public = key.public_key().public_bytes(kinds[0].PEM, kinds[1].SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return folder / name


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    return write_key(tmp_path, "ann")


@pytest.fixture
def eve(tmp_path: Path) -> Path:
    return write_key(tmp_path, "eve")


def change(teams: Teams, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the publication of math@1 in the registry; its own digest fits."""
    publication = json.loads(teams.files.read_bytes(DOCUMENT))
    edit(publication)
    teams.files.write_bytes(DOCUMENT, document_bytes(publication))


@pytest.mark.parametrize("openssh", [True, False])
def test_signature_of_a_trusted_key_is_recorded(teams: Teams, tmp_path: Path, openssh: bool) -> None:
    key = write_key(tmp_path, "bob", openssh=openssh)
    teams.ours.remotes.push("math@1", teams.registry, sign=str(key))
    teams.theirs.trust.add(f"{key}.pub", name="bob")
    pulled = teams.theirs.remotes.pull("math@1", teams.registry, require_signed=True)
    assert pulled.signed_by == ("bob",)
    assert pulled.profile.manifest.origin is not None
    assert pulled.profile.manifest.origin.signed_by == ("bob",)
    assert teams.theirs.verify().findings == ()


def test_signature_can_be_checked_with_nothing_but_the_documented_bytes(teams: Teams, ann: Path) -> None:
    teams.ours.remotes.push("math@1", teams.registry, sign=str(ann))
    fields = json.loads(teams.files.read_bytes(DOCUMENT))
    (signature,) = fields.pop("signatures")
    del fields["_sha256"]
    key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["public_key"]))
    key.verify(bytes.fromhex(signature["signature"]), b"nait-store publication 1\n" + canonical_json(fields))


def test_unsigned_and_untrusted_versions_come_where_nothing_is_required(teams: Teams, eve: Path) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    teams.ours.remotes.push("math@2", teams.registry, sign=str(eve))
    for reference in ("math@1", "math@2"):
        assert teams.theirs.remotes.pull(reference, teams.registry).signed_by == ()


def test_unsigned_version_is_refused_where_a_signature_is_required(teams: Teams, digests: Digests) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    before = digests(teams.theirs)
    with pytest.raises(UntrustedError, match="math@1 is not signed"):
        teams.theirs.remotes.pull("math@1", teams.registry, require_signed=True)
    assert digests(teams.theirs) == before


def test_key_that_is_not_trusted_does_not_count(teams: Teams, ann: Path, eve: Path) -> None:
    teams.ours.remotes.push("math@1", teams.registry, sign=str(eve))
    teams.theirs.trust.add(f"{ann}.pub")
    with pytest.raises(UntrustedError, match="whom this store does not trust"):
        teams.theirs.remotes.pull("math@1", teams.registry, require_signed=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [("record_sha256", "0" * 64), ("directions_sha256", "0" * 64), ("message", "better than ever"), ("name", "code")],
)
def test_changed_publication_with_its_old_signature_is_refused(teams: Teams, ann: Path, field: str, value: str) -> None:
    teams.ours.remotes.push("math@1", teams.registry, sign=str(ann))
    change(teams, lambda publication: publication.update({field: value}))
    if field == "name":
        teams.files.write_bytes("profiles/code/versions/1.json", teams.files.read_bytes(DOCUMENT))
    with pytest.raises(FormatError, match="forged"):
        teams.theirs.remotes.pull("code@1" if field == "name" else "math@1", teams.registry)


def test_signature_of_another_version_is_refused(teams: Teams, ann: Path) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    teams.ours.remotes.push("math@2", teams.registry, sign=str(ann))
    signatures = json.loads(teams.files.read_bytes("profiles/math/versions/2.json"))["signatures"]
    change(teams, lambda publication: publication.update(signatures=signatures))
    with pytest.raises(FormatError, match="put there from another version"):
        teams.theirs.remotes.pull("math@1", teams.registry)


def test_signature_under_another_key_is_refused(teams: Teams, ann: Path, eve: Path) -> None:
    teams.ours.remotes.push("math@1", teams.registry, sign=str(eve))
    trusted = teams.theirs.trust.add(f"{ann}.pub")
    change(teams, lambda publication: publication["signatures"][0].update(public_key=trusted.public_key))
    with pytest.raises(FormatError, match="forged"):
        teams.theirs.remotes.pull("math@1", teams.registry, require_signed=True)


def test_signature_taken_away_is_missed(teams: Teams, ann: Path) -> None:
    teams.ours.remotes.push("math@1", teams.registry, sign=str(ann))
    teams.theirs.trust.add(f"{ann}.pub")
    change(teams, lambda publication: publication.update(signatures=[]))
    with pytest.raises(UntrustedError):
        teams.theirs.remotes.pull("math@1", teams.registry, require_signed=True)


@pytest.mark.parametrize(
    "signatures",
    [
        [{"public_key": "0" * 64, "signature": "0" * 128}],
        [{"public_key": "01" + "0" * 60 + "80", "signature": "01" + "0" * 126}],
        [{"public_key": "f" * 64, "signature": "f" * 128}],
        [{"public_key": "x", "signature": "y"}],
        [{"public_key": "0" * 64, "signature": "0" * 128}] * 17,
        "all of them",
    ],
)
def test_signatures_that_are_none_are_refused(teams: Teams, signatures: Any) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    change(teams, lambda publication: publication.update(signatures=signatures))
    with pytest.raises(FormatError, match=r"forged|signatures"):
        teams.theirs.remotes.pull("math@1", teams.registry)


def test_document_that_can_be_read_in_two_ways_is_not_taken_for_signed(teams: Teams, ann: Path) -> None:
    import hashlib

    teams.ours.remotes.push("math@1", teams.registry, sign=str(ann))
    data = teams.files.read_bytes(DOCUMENT).replace(b'"number":1', b'"number":7,"number":1')
    undigested = data[:12] + b"0" * 64 + data[76:]
    data = data[:12] + hashlib.sha256(undigested).hexdigest().encode() + data[76:]
    teams.files.write_bytes(DOCUMENT, data)
    with pytest.raises(FormatError, match="canonical form"):
        teams.theirs.remotes.pull("math@1", teams.registry)


def test_remote_that_requires_signatures_does_so_by_name_and_by_url(teams: Teams) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    teams.theirs.remotes.add("team", teams.registry, require_signed=True)
    for remote in ("team", teams.registry, None):
        with pytest.raises(UntrustedError):
            teams.theirs.remotes.pull("math@1", remote)


def test_sync_tells_what_is_not_signed_and_brings_the_rest(teams: Teams, ann: Path) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    teams.ours.remotes.sync(teams.registry, sign=str(ann))
    teams.theirs.trust.add(f"{ann}.pub")
    report = teams.theirs.remotes.sync(teams.registry, require_signed=True)
    assert report.pulled == ("math@2",)
    assert [(one.reference, one.exit_code) for one in report.problems] == [("math@1", 14)]


def test_bundle_is_signed_and_required_to_be(teams: Teams, ann: Path, tmp_path: Path) -> None:
    signed, unsigned = (str(tmp_path / name) for name in ("signed.zip", "unsigned.zip"))
    teams.ours.remotes.export_bundle("math@1", signed, sign=str(ann))
    teams.ours.remotes.export_bundle("math@1", unsigned)
    teams.theirs.trust.add(f"{ann}.pub")
    with pytest.raises(UntrustedError):
        teams.theirs.remotes.import_bundle(unsigned, require_signed=True)
    assert teams.theirs.remotes.import_bundle(signed, require_signed=True)[0].signed_by == ("ann-lab",)


def test_without_cryptography_signatures_are_not_believed(
    teams: Teams, ann: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teams.ours.remotes.push("math@1", teams.registry, sign=str(ann))
    teams.theirs.trust.add(f"{ann}.pub")
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    with pytest.raises(MissingExtraError, match="needs the package cryptography") as missing:
        teams.theirs.remotes.pull("math@1", teams.registry, require_signed=True)
    assert "nait-store[sign]" in str(missing.value.next_step)
    assert teams.theirs.remotes.pull("math@1", teams.registry).signed_by == ()
    with pytest.raises(MissingExtraError):
        teams.ours.remotes.push("math@2", teams.registry, sign=str(ann))


def test_keys_are_added_named_and_removed(teams: Teams, ann: Path) -> None:
    trust = teams.ours.trust
    first = trust.add(f"{ann}.pub")
    assert first.name == "ann-lab"
    assert trust.add(Path(f"{ann}.pub").read_text()) == first
    assert trust.add(first.public_key, name="same").public_key == first.public_key
    assert [one.name for one in trust.list()] == ["ann-lab", "same"]
    with pytest.raises(AlreadyExistsError, match="another key is called"):
        trust.add("2" * 64, name="same")
    assert trust.remove("same").name == "same"
    with pytest.raises(NotFoundError, match="no key is called"):
        trust.remove("same")
    assert trust.add("1" * 64).name == trust.add("1" * 64).fingerprint


def test_what_is_no_public_key_is_refused(teams: Teams, ann: Path, tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    del encoding, form
    (tmp_path / "nonsense.pub").write_text("ssh-ed25519 AAAA")
    for key, reason in (
        (str(ann), "a private key"),
        (pem, "another kind"),
        (str(tmp_path / "nonsense.pub"), "no public key"),
        (str(tmp_path), "cannot read the key"),
        ("0" * 64, "everybody can make"),
        ("ec" + "f" * 60 + "ff", "everybody can make"),
    ):
        with pytest.raises(InvalidInputError, match=reason):
            teams.ours.trust.add(key)
    with pytest.raises(NotFoundError, match="no key file"):
        teams.ours.trust.add("nowhere.pub")
    assert teams.ours.trust.list() == []


def test_what_is_no_signing_key_is_refused_before_anything_is_published(teams: Teams, ann: Path) -> None:
    with pytest.raises(InvalidInputError, match="no private key"):
        teams.ours.remotes.push("math@1", teams.registry, sign=f"{ann}.pub")
    with pytest.raises(NotFoundError, match="no key file"):
        teams.ours.remotes.push("math@1", teams.registry, sign="nowhere")
    assert teams.files.names() == []


def test_damaged_key_is_found_by_verification(teams: Teams, ann: Path) -> None:
    teams.ours.trust.add(f"{ann}.pub")
    location = teams.ours.location
    location.write_bytes("trust/other.json", location.read_bytes("trust/ann-lab.json"))
    assert [finding.path for finding in teams.ours.verify().errors] == ["trust/other.json"]


def test_commands_say_what_they_did(teams: Teams, ann: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nait_store.cli.main import main

    def run(store: nait_store.Store, *arguments: str, code: int = 0) -> str:
        assert main(("--store", store.url, *arguments)) == code
        return capsys.readouterr().out

    assert run(teams.theirs, "trust", "list").startswith("no key is trusted")
    assert "signatures of ann-lab count now" in run(teams.theirs, "trust", "add", f"{ann}.pub")
    assert "ann-lab" in run(teams.theirs, "trust", "list")
    run(teams.ours, "push", "math@1", teams.registry)
    run(teams.ours, "push", "math@2", teams.registry, "--sign", str(ann))
    run(teams.theirs, "pull", "math@1", teams.registry, "--require-signed", code=14)
    assert "signed by ann-lab" in run(teams.theirs, "pull", "math@2", teams.registry, "--require-signed")
    assert "ann-lab" in run(teams.theirs, "remote", "show", teams.registry)
    assert "no longer count" in run(teams.theirs, "trust", "remove", "ann-lab")
