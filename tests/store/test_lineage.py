"""Lineages: what a version was made from and what was made from it, against graphs that are known beforehand."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from datetime import timedelta
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import nait_store
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.schemas.profile import ProfileRecord
from nait_store.schemas.record import document_bytes
from nait_store.store.lineage.graph import Lineage, LineageEdge, NodeState, without_cycles
from nait_store.testing.fake_capture import FakeCapture

CAPTURE = FakeCapture(n_model_layers=2, n_neurons=6)


def write(path: Path, numbers: range) -> str:
    lines = [{"id": f"s{i}", "instruction": f"question {i}", "output": f"answer {i}", "level": i % 3} for i in numbers]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pool of two files, then without some samples; maths; a profile of each kind; a selection."""
    folder = tmp_path_factory.mktemp("lineage")
    made = nait_store.open(str(folder / "store"), create=True)
    for name, numbers in (("a", range(20)), ("b", range(20, 30)), ("maths", range(100, 112))):
        file = write(folder / f"{name}.jsonl", numbers)
        made.ingest(file, set="maths" if name == "maths" else "pool", model="fake", capture=CAPTURE, id_field="id")
    made.sets.delete_samples("pool", where="level = 0")
    made.profiles.build("math", source="maths")
    made.profiles.build("contrast", source="maths", against="pool@2")
    made.selections.save("best", made.select("pool", profile="math", top=5))
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NAIT_STORE", raising=False)
    return Path(shutil.copytree(original, tmp_path / "work"))


@pytest.fixture
def store(folder: Path) -> nait_store.Store:
    """A copy of it, to be changed."""
    return nait_store.open(str(folder / "store"))


def test_combined_and_imported_profiles_lead_to_what_they_are_of(store: nait_store.Store, folder: Path) -> None:
    store.profiles.combine("mixed", {"math": 1.0}, without=["contrast"])
    exported = store.profiles.export("mixed", str(folder / "mixed.npz"))
    store.profiles.import_("theirs", exported.url)
    found = edges(store.lineage("profile:mixed", direction="up"))
    assert {one for one in found if one[2] == "profile:mixed@1"} == {
        ("profile:math@1", "combined from", "profile:mixed@1"),
        ("profile:contrast@1", "made orthogonal to", "profile:mixed@1"),
    }
    assert found >= MATH | MATHS
    theirs = store.lineage("profile:theirs")
    assert edges(theirs) == {
        ("file:mixed.npz", "imported from", "profile:theirs@1"),
        (MODEL, "built with", "profile:theirs@1"),
    }
    (file,) = (node for node in theirs.nodes if node.kind == "file")
    assert file.digest == sha256(folder / "mixed.npz")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edges(lineage: Lineage) -> set[tuple[str, str, str]]:
    """Edges by the names of what they connect: digests of files and models are left out."""
    names = {node.id: f"{node.kind}:{Path(node.name).name}" for node in lineage.nodes}
    return {(names[edge.source], edge.relation, names[edge.target]) for edge in lineage.edges}


MODEL = f"model:{CAPTURE.environment.model_source.removeprefix('./')}"
POOL = {
    ("file:a.jsonl", "ingested", "set:pool@1"),
    (MODEL, "captured with", "set:pool@1"),
    ("set:pool@1", "appended to", "set:pool@2"),
    ("file:b.jsonl", "ingested", "set:pool@2"),
    (MODEL, "captured with", "set:pool@2"),
    ("set:pool@2", "samples deleted", "set:pool@3"),
}
MATHS = {("file:maths.jsonl", "ingested", "set:maths@1"), (MODEL, "captured with", "set:maths@1")}
MATH = {("set:maths@1", "built from", "profile:math@1")}
BEST = {("set:pool@3", "selected from", "selection:best@1"), ("profile:math@1", "ranked by", "selection:best@1")}
BEST_BY_MATH = ("profile:math@1", "ranked by", "selection:best@1")
CONTRAST = ("set:maths@1", "built from", "profile:contrast@1")


def test_a_selection_is_followed_back_to_files_and_models(store: nait_store.Store) -> None:
    found = store.lineage("best", "up")
    assert edges(found) == POOL | MATHS | MATH | BEST
    assert found.gaps == ()
    assert found.root == "selection:best@1" == found.nodes[0].id


def test_a_selection_by_two_profiles_comes_from_both(store: nait_store.Store) -> None:
    store.selections.save("both", store.select("pool", profile=["math", "contrast"], top=5))
    found = {edge for edge in edges(store.lineage("both", "up")) if edge[2] == "selection:both@1"}
    assert found == {
        ("set:pool@3", "selected from", "selection:both@1"),
        ("profile:math@1", "ranked by", "selection:both@1"),
        ("profile:contrast@1", "ranked by", "selection:both@1"),
    }
    with pytest.raises(InvalidInputError, match="selection:both@1"):
        store.profiles.delete("contrast@1")


def test_files_have_their_digests_and_models_their_fingerprint(store: nait_store.Store, folder: Path) -> None:
    found = store.lineage("best", "up")
    files = {Path(node.name).name: (node.digest, node.size_bytes) for node in found.nodes if node.kind == "file"}
    paths = [folder / name for name in ("a.jsonl", "b.jsonl", "maths.jsonl")]
    assert files == {path.name: (sha256(path), path.stat().st_size) for path in paths}
    (model,) = [node for node in found.nodes if node.kind == "model"]
    assert model.digest == CAPTURE.identity.model_fingerprint
    assert model.state is NodeState.OUTSIDE


def test_a_set_is_followed_to_everything_that_was_made_from_it(store: nait_store.Store) -> None:
    assert edges(store.lineage("maths", "down")) == MATH | {CONTRAST, BEST_BY_MATH}
    assert edges(store.lineage("pool@1", "down")) == {
        *(edge for edge in POOL if edge[0].startswith("set:")),
        ("set:pool@3", "selected from", "selection:best@1"),
        ("set:pool@2", "built against", "profile:contrast@1"),
    }


def test_both_directions_are_the_two_together(store: nait_store.Store) -> None:
    assert edges(store.lineage("math")) == MATHS | MATH | {BEST_BY_MATH}


def test_facts_of_versions_are_those_of_their_records(store: nait_store.Store) -> None:
    found = store.lineage("best", "up")
    profile = store.profiles.open("math@1").record
    node = found.node("profile:math@1")
    assert (node.digest, node.n_samples, node.author) == (
        profile.directions_sha256,
        12,
        profile.provenance.author,
    )
    assert found.node("set:pool@3").what == "delete-samples 10 samples where level = 0"
    assert found.node("set:pool@3").n_samples == 20
    assert found.node("selection:best@1").n_samples == 5


def test_a_restored_version_comes_from_the_one_that_it_restores(store: nait_store.Store) -> None:
    store.sets.restore("pool@1")
    found = edges(store.lineage("pool@4", "up"))
    assert found == {("set:pool@1", "restored", "set:pool@4"), *(e for e in POOL if e[2] == "set:pool@1")}


@pytest.mark.parametrize(("change", "relation"), [("compact", "compacted"), ("convert", "converted")])
def test_rewritten_sets_keep_their_origins(store: nait_store.Store, change: str, relation: str) -> None:
    store.sets.compact("pool") if change == "compact" else store.sets.convert("pool", "int8")
    assert ("set:pool@3", relation, "set:pool@4") in edges(store.lineage("pool", "up"))


def test_deleted_parents_are_followed_and_said_to_be_deleted(store: nait_store.Store) -> None:
    store.sets.delete("maths", force=True)
    found = store.lineage("math", "up")
    assert edges(found) == MATHS | MATH
    assert found.node("set:maths@1").state is NodeState.DELETED


def test_of_a_version_that_gc_took_the_graph_says_so_and_tells_what_is_left(store: nait_store.Store) -> None:
    for reference in ("pool@1", "pool@2"):
        store.sets.delete(reference, force=True)
    store.profiles.delete("contrast")
    store.gc(grace=timedelta(0))
    found = store.lineage("pool@3", "up")
    assert found.node("set:pool@2").state is NodeState.COLLECTED
    assert found.gaps == ("set:pool@2 was deleted, and gc has taken its records",)
    # the samples still say which files they came from, though not with which bytes
    assert edges(found) == {
        ("set:pool@2", "samples deleted", "set:pool@3"),
        ("file:a.jsonl", "holds samples of", "set:pool@3"),
        ("file:b.jsonl", "holds samples of", "set:pool@3"),
        (MODEL, "captured with", "set:pool@3"),
    }
    assert {node.digest for node in found.nodes if node.kind == "file"} == {None}


def test_a_profile_whose_set_is_not_in_the_store_still_knows_its_model(store: nait_store.Store) -> None:
    store.location.delete("activations/maths")
    found = nait_store.open(store.url).lineage("math", "up")
    assert found.node("set:maths@1").state is NodeState.MISSING
    assert any("set:maths@1 is not in this store" in gap for gap in found.gaps)
    (model,) = [node for node in found.nodes if node.kind == "model"]
    assert model.digest == CAPTURE.identity.model_fingerprint


def test_a_record_that_cannot_be_read_is_a_gap(store: nait_store.Store) -> None:
    payload = store.profiles.open("math").folder
    store.location.write_bytes(f"{payload}/profile.json", b"{ broken")
    found = nait_store.open(store.url).lineage("best", "up")
    assert any("profile:math@1" in gap for gap in found.gaps)
    assert edges(found) >= POOL


def test_a_set_of_projections_comes_from_the_profiles(store: nait_store.Store, folder: Path) -> None:
    store.ingest(
        write(folder / "c.jsonl", range(200, 206)),
        set="slim",
        model="fake",
        capture=CAPTURE,
        id_field="id",
        keep_features="none",
        score_with=["math"],
    )
    assert ("profile:math@1", "keeps projections on", "set:slim@1") in edges(store.lineage("slim", "up"))
    assert ("profile:math@1", "keeps projections on", "set:slim@1") in edges(store.lineage("math@1", "down"))


def test_one_file_with_other_bytes_is_another_node(store: nait_store.Store, folder: Path) -> None:
    before = sha256(folder / "b.jsonl")
    store.ingest(write(folder / "b.jsonl", range(20, 40)), set="pool", model="fake", capture=CAPTURE, id_field="id")
    digests = [n.digest for n in store.lineage("pool", "up").nodes if Path(n.name).name == "b.jsonl"]
    assert sorted(map(str, digests)) == sorted([before, sha256(folder / "b.jsonl")])


def test_a_name_of_two_kinds_must_be_written_with_its_kind(store: nait_store.Store) -> None:
    store.profiles.build("maths", source="maths")
    with pytest.raises(InvalidInputError, match="'maths' is a set and a profile") as error:
        store.lineage("maths")
    assert error.value.next_step == "write set:maths or profile:maths"
    assert store.lineage("profile:maths", "up").root == "profile:maths@1"


@pytest.mark.parametrize("reference", ["nothing", "math@9", "profile:pool", "math@prod", "set:"])
def test_what_is_not_there_has_no_lineage(store: nait_store.Store, reference: str) -> None:
    with pytest.raises((NotFoundError, InvalidInputError)):
        store.lineage(reference)


def test_an_alias_is_followed_and_a_deleted_version_found_by_its_number(store: nait_store.Store) -> None:
    store.sets.alias("pool@2", "prod")
    assert store.lineage("pool@prod", "up").root == "set:pool@2"
    store.profiles.delete("contrast")
    assert store.lineage("contrast@1", "up").nodes[0].state is NodeState.DELETED


def forge(store: nait_store.Store, **source: Any) -> None:
    """Make profile math say that it was built from another set, as a hostile store might."""
    folder = store.profiles.open("math").folder
    record = json.loads(store.location.read_bytes(f"{folder}/profile.json"))
    record["source"] |= source
    data = document_bytes({key: value for key, value in record.items() if key != "_sha256"})
    ProfileRecord.from_json_bytes(data, "forged")
    store.location.write_bytes(f"{folder}/profile.json", data)
    manifest = json.loads(store.location.read_bytes("profiles/math/versions/1.json"))
    manifest["record_sha256"] = hashlib.sha256(data).hexdigest()
    store.location.write_bytes(
        "profiles/math/versions/1.json",
        document_bytes({key: value for key, value in manifest.items() if key != "_sha256"}),
    )


def test_a_circle_in_forged_records_is_cut_and_told(store: nait_store.Store, folder: Path) -> None:
    file = write(folder / "c.jsonl", range(200, 206))
    store.ingest(file, set="slim", model="f", capture=CAPTURE, id_field="id", keep_features="none", score_with=["math"])
    forge(store, set_name="slim", version=1)
    opened = nait_store.open(store.url)
    for direction in ("up", "down", "both"):
        found = opened.lineage("math", direction)
        list(TopologicalSorter({n.id: [e.source for e in found.origins(n.id)] for n in found.nodes}).static_order())
        assert any("cannot have been made from" in gap for gap in found.gaps)


def test_every_edge_set_without_cycles_is_kept_and_the_closing_edge_is_not() -> None:
    chain = [LineageEdge(f"n{i}", f"n{i + 1}", "r") for i in range(5)]
    closing = LineageEdge("n5", "n0", "r")
    assert without_cycles([*chain, closing]) == (chain, [closing])
    itself = LineageEdge("n0", "n0", "r")
    assert without_cycles([itself]) == ([], [itself])


HOSTILE = [
    'quote " and ]) end',
    "back`tick` <script>alert(1)</script>",
    "style x:#35;fill #quot; &quot; &amp;",
    "line\nclick n0 call evil()\r\x1b[31m",
    '%%{init: {}}%% --> n0; subgraph \\N \\" |pipe| {brace}',
    "ünï ∀ 🦀 \u202e",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_within_their_labels(store: nait_store.Store, text: str) -> None:
    plain = store.lineage("math", "up")
    nodes = tuple(replace(node, name=text, what=text) for node in plain.nodes)
    hostile = replace(plain, nodes=nodes)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

    lines = hostile.mermaid().splitlines()
    assert len(lines) == len(plain.mermaid().splitlines())
    for line in lines[1 : 1 + len(nodes)]:
        match = re.fullmatch(r'  n\d+[\[({]+"((?:[^"`<>&]|<br/>)*)"[\])}]+', line)
        assert match is not None
        assert ":" not in match[1]
        parts = [re.sub(r"#(\d+);", lambda m: chr(int(m[1])), part) for part in match[1].split("<br/>")]
        assert parts[0].split(" ", 1)[1] == shown == parts[1]

    drawn = hostile.dot()
    assert len(drawn.splitlines()) == len(plain.dot().splitlines())
    labels = re.findall(r'label="((?:[^"\\]|\\.)*)"', drawn)
    unescaped = [
        re.sub(r"\\(.)", lambda m: m[1] if m[1] != "n" else "\n", one).replace("&amp;", "&").split("\n")
        for one in labels[: len(nodes)]
    ]
    assert [parts[0].split(" ", 1)[1] for parts in unescaped] == [shown] * len(nodes)
    # what is left without labels is the language itself
    assert re.fullmatch(r'[\w\s{}\[\]=,;>"/-]*', re.sub(r'label="(?:[^"\\]|\\.)*"', "label", drawn))


def test_long_texts_are_cut_in_pictures(store: nait_store.Store) -> None:
    plain = store.lineage("math", "up")
    long = replace(plain, nodes=tuple(replace(node, name="x" * 5000) for node in plain.nodes))
    assert max(map(len, long.mermaid().splitlines())) < 400
