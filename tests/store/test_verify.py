"""What verify finds in a whole store, and what it leaves alone."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import nait_store
from nait_store.errors import NotFoundError
from nait_store.progress import ProgressEvent
from nait_store.refs import Kind
from nait_store.schemas.activation_set import IngestOutcome, Operation, RedirectRecord
from nait_store.schemas.capture import Feature
from nait_store.schemas.record import FileDigest
from nait_store.schemas.scores import SidecarRecord
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.heartbeat import BeatingHeart
from nait_store.storage.labels import LabelKind
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.storage.verify import Severity
from nait_store.store.integrity import verify
from nait_store.testing.stores import build_segment, build_set, fake_row

Problems = dict[str, str]


def problems(store: nait_store.Store, severity: Severity = Severity.ERROR, *, quick: bool = False) -> Problems:
    """Path → problem."""
    return {f.path: f.problem for f in store.verify(quick=quick).findings if f.severity is severity}


def test_a_sound_store_has_no_findings(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    store.score("pool", "math")
    store.selections.save("best", store.select("pool", profile="math", top=3))
    store.sql("FROM versions").fetchall()
    for quick in (False, True):
        report = store.verify(quick=quick)
        assert report.findings == ()
        assert report.n_files == len(list(store.location.walk()))
        assert (report.n_sets, report.n_profiles, report.n_selections) == (2, 1, 1)
    assert store.verify().n_bytes == sum(size for _, size in store.location.walk())


def test_progress_counts_files_and_bytes_of_the_total(url: str) -> None:
    events: list[ProgressEvent] = []
    store = nait_store.open(url, create=True, progress=events.append)
    build_set(store.location, "pool", 20)
    store.verify()
    files = list(store.location.walk())
    last = events[-1]
    assert (last.done, last.total) == (len(files), len(files))
    assert last.bytes_done == last.bytes_total == sum(size for _, size in files)


def test_a_gap_in_the_version_numbers_is_an_error(store: nait_store.Store) -> None:
    for first in (40, 50):
        build_set(store.location, "pool", 3, first=first)
    store.location.delete(layout.version_document(Kind.SET, "pool", 2))
    assert "version 2 is missing" in problems(store, quick=True)["activations/pool/versions/2.json"]


def test_a_collected_version_is_no_gap(store: nait_store.Store) -> None:
    build_set(store.location, "maths", 3, first=300, features=(Feature.MEAN, Feature.DRIFT))
    sets = store.sets.versions
    kept = sets.manifest("maths", 2)
    full = kept.model_copy(update={"base": None, "segments": sets.open("maths@2").refs})
    store.location.write_bytes("activations/maths/versions/2.json", full.to_json_bytes())
    sets.log.delete("maths", 1)
    assert sets.log.collect("maths", 1)
    store.location.delete("activations/maths/versions/1.json")
    assert problems(store) == {}


def test_the_data_of_a_deleted_version_must_be_there_until_it_is_collected(store: nait_store.Store) -> None:
    sets = store.sets.versions
    segment = sets.open("maths").refs[0].segment_id
    path = f"activations/maths/segments/{segment}/samples.parquet"
    sets.log.delete("maths", 1)
    store.location.delete(path)
    assert problems(store, quick=True) == {path: "it is missing"}
    sets.log.collect("maths", 1)
    store.location.delete(f"activations/maths/segments/{segment}")
    assert problems(store) == {}


def test_a_label_on_a_version_that_is_not_there_is_an_error(store: nait_store.Store) -> None:
    store.sets.versions.log.labels.put(LabelKind.ALIAS, "pool", "prod", 1)
    assert problems(store) == {}
    store.sets.versions.log.labels.put(LabelKind.ALIAS, "pool", "prod", 7)
    assert problems(store) == {"activations/pool/aliases/prod/2.json": "it names version 7, which is not there"}


def test_a_label_on_a_deleted_version_is_worth_knowing(store: nait_store.Store) -> None:
    store.sets.versions.log.labels.put(LabelKind.TAG, "pool", "paper", 1)
    store.sets.versions.log.delete("pool", 1)
    assert problems(store) == {}
    assert "deleted" in problems(store, Severity.INFO)["activations/pool/tags/paper/1.json"]


def test_a_missing_move_of_a_label_is_an_error(store: nait_store.Store) -> None:
    build_set(store.location, "pool", 3, first=60)
    for version in (1, 2):
        store.sets.versions.log.labels.put(LabelKind.ALIAS, "pool", "prod", version)
    store.location.delete("activations/pool/aliases/prod/1.json")
    assert "move 1" in problems(store)["activations/pool/aliases/prod/1.json"]


def test_a_redirect_must_lead_to_a_whole_segment(store: nait_store.Store) -> None:
    ref = store.sets.open("maths").refs[0]
    redirect = RedirectRecord(
        segment_id=ref.segment_id,
        replacement=new_ulid(),
        record_sha256="0" * 64,
        n_rows=ref.n_rows,
        blank_rows=(1, 3),
        operation=Operation.PURGE,
        provenance=current_provenance(),
    )
    path = f"activations/maths/redirects/{ref.segment_id}.json"
    store.location.write_bytes(path, redirect.to_json_bytes())
    assert problems(store) == {f"activations/maths/segments/{redirect.replacement}/segment.json": "it is missing"}


def test_redirects_that_lead_in_a_circle_are_an_error(store: nait_store.Store) -> None:
    ref = store.sets.open("maths").refs[0]
    redirect = RedirectRecord(
        segment_id=ref.segment_id,
        replacement=ref.segment_id,
        record_sha256=ref.record_sha256,
        n_rows=ref.n_rows,
        blank_rows=(),
        operation=Operation.PURGE,
        provenance=current_provenance(),
    )
    path = f"activations/maths/redirects/{ref.segment_id}.json"
    store.location.write_bytes(path, redirect.to_json_bytes())
    assert problems(store) == {path: "it leads back to itself"}


def test_an_ingest_that_committed_a_version_tells_that_it_is_lost(store: nait_store.Store) -> None:
    ingest = new_ulid()
    outcome = IngestOutcome(ingest_id=ingest, version=2, provenance=current_provenance())
    store.location.write_bytes(f"activations/pool/ingests/{ingest}/outcome.json", outcome.to_json_bytes())
    assert f"ingest {ingest} committed it" in problems(store)["activations/pool/versions/2.json"]


def test_rejects_are_compared_with_the_outcome(store: nait_store.Store) -> None:
    ingest = new_ulid()
    folder = f"activations/pool/ingests/{ingest}"
    data = b'{"reason": "broken"}\n'
    digest = FileDigest(path="rejects.jsonl", size_bytes=len(data), sha256=sha256_bytes(data))
    outcome = IngestOutcome(ingest_id=ingest, version=1, rejects=digest, provenance=current_provenance())
    store.location.write_bytes(f"{folder}/rejects.jsonl", data)
    store.location.write_bytes(f"{folder}/outcome.json", outcome.to_json_bytes())
    assert store.verify().findings == ()
    store.location.write_bytes(f"{folder}/rejects.jsonl", data.replace(b"broken", b"br0ken"))
    assert problems(store) == {f"{folder}/rejects.jsonl": "it differs from its recorded SHA-256"}


def test_ids_must_be_unique_in_versions_that_are_not_the_last_too(store: nait_store.Store) -> None:
    build_set(store.location, "pool", 10, first=25, user_fields={"kind": ["chat", "code"] * 5})
    sets = store.sets.versions
    second = sets.manifest("pool", 2)
    assert second.tombstones is not None
    shown = second.model_copy(update={"tombstones": None, "n_samples": 40})
    store.location.write_bytes("activations/pool/versions/2.json", shown.to_json_bytes())
    third = second.model_copy(update={"number": 3, "parent": 2})
    store.location.write_bytes("activations/pool/versions/3.json", third.to_json_bytes())
    assert problems(store) == {"activations/pool/versions/2.json": "5 sample ids are visible more than once"}


def test_what_no_record_lists_is_worth_knowing(store: nait_store.Store) -> None:
    strays = ["notes.txt", "activations/pool/notes.txt", "activations/README", "profiles/math/payloads/x", "odd/file"]
    for stray in strays:
        store.location.write_bytes(stray, b"hello")
    assert problems(store) == {}
    assert sorted(problems(store, Severity.INFO)) == sorted(strays)


def test_a_job_that_died_is_mentioned_and_a_living_one_is_not(store: nait_store.Store) -> None:
    folder = layout.job_folder("pool", new_ulid())
    with BeatingHeart(store.location, folder):
        assert store.verify().findings == ()
    path = f"{folder}/heartbeat.json"
    beat = store.location.read_bytes(path)
    store.location.write_bytes(path, beat[:-20])
    report = store.verify()
    assert {f.path for f in report.findings} == {path, folder}


def test_a_lost_sidecar_is_no_loss_and_a_changed_one_is_damage(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    store.score("pool", "math")
    (path,) = (path for path, _ in store.location.walk("scores") if path.endswith(".parquet"))
    whole = store.location.read_bytes(path)
    store.location.write_bytes(path, whole[:-1])
    assert list(problems(store, quick=True)) == [path]
    store.location.delete(path)
    assert problems(store) == {}
    assert "computed again" in problems(store, Severity.INFO)[path]


def test_scores_of_an_earlier_kernel_are_worth_knowing_and_checked_all_the_same(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    store.score("pool", "math")
    (path,) = (path for path, _ in store.location.walk("scores") if path.endswith(".parquet"))
    record = SidecarRecord.from_json_bytes(store.location.read_bytes(path.replace(".parquet", ".json")), path)
    older = record.model_copy(update={"kernel_revision": 0})
    kept, noted = layout.score_sidecar(older.key), layout.score_record(older.key)
    store.location.write_bytes(kept, store.location.read_bytes(path))
    store.location.write_bytes(noted, older.to_json_bytes())
    assert problems(store) == {}
    assert problems(store, Severity.INFO)[noted].startswith("an earlier release computed these scores")
    store.location.write_bytes(kept, store.location.read_bytes(path)[::-1])
    assert list(problems(store)) == [kept]


def test_files_that_go_while_it_runs_are_no_findings(url: str) -> None:
    store = nait_store.open(url, create=True)
    build_set(store.location, "pool", 4)
    job = layout.job_folder("pool", new_ulid())
    stray = build_segment(store.location, "pool", [fake_row("x")], {Feature.MEAN: np.ones((1, 2, 8), np.float32)})
    with BeatingHeart(store.location, job):
        pass

    def finish_meanwhile(event: ProgressEvent) -> None:
        store.location.delete(job)
        store.location.delete(layout.segment_folder("pool", stray.segment_id))

    report = verify(store.location, progress=finish_meanwhile)
    assert report.errors == ()


def test_an_interrupt_stops_at_once_and_leaves_no_thread(url: str) -> None:
    store = nait_store.open(url, create=True)
    build_set(store.location, "pool", 200, n_segments=4, chunk_rows=1)

    def interrupt(event: ProgressEvent) -> None:
        if event.bytes_done > 20_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(store.location, progress=interrupt)
    assert [t.name for t in threading.enumerate() if t.name.startswith(("nait-hash", "nait-verify", "nait-read"))] == []


def test_one_set_alone(store: nait_store.Store) -> None:
    path = next(path for path, _ in store.location.walk("activations/maths") if path.endswith("samples.parquet"))
    store.location.delete(path)
    assert store.verify(set="pool").ok
    report = store.verify(set="maths")
    assert [finding.path for finding in report.errors] == [path]
    assert (report.n_sets, report.n_profiles) == (1, 0)
    with pytest.raises(NotFoundError) as caught:
        store.verify(set="math")
    assert caught.value.next_step == "did you mean 'maths'?"


def test_a_damaged_set_record_is_one_finding(store: nait_store.Store) -> None:
    path = "activations/pool/set.json"
    store.location.write_bytes(path, store.location.read_bytes(path).replace(b'"name":"pool"', b'"name":"pond"'))
    (finding,) = store.verify().findings
    assert (finding.path, finding.place) == (path, "its digest")


def test_a_field_that_cannot_be_is_named(store: nait_store.Store) -> None:
    manifest = store.sets.versions.manifest("pool", 1)
    broken = manifest.model_copy(update={"n_samples": -1})
    store.location.write_bytes("activations/pool/versions/1.json", broken.to_json_bytes())
    places = [f.place for f in store.verify().errors if f.path.endswith("1.json")]
    assert places == ["n_samples"]


@pytest.mark.parametrize("threads", ["1", "3"])
def test_any_number_of_threads_finds_the_same(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    monkeypatch.setenv("NAIT_STORE_THREADS", threads)
    damaged = [path for path, _ in store.location.walk() if path.endswith(("c/0/0/0", "samples.parquet"))]
    for path in damaged:
        data = bytearray(store.location.read_bytes(path))
        data[-1] ^= 4
        store.location.write_bytes(path, bytes(data))
    assert sorted(problems(store)) == damaged
