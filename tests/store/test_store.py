"""The Python API over local folders and memory."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

import nait_store
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.progress import ProgressEvent
from nait_store.selection.destination import BytesTarget
from nait_store.testing.fake_capture import FakeCapture


def test_the_whole_job(store: nait_store.Store, tmp_path: Path) -> None:
    source = tmp_path / "new.jsonl"
    source.write_text("".join(json.dumps({"instruction": f"q{i}", "output": "a"}) + "\n" for i in range(6)))
    report = store.ingest(str(source), set="new", model="unused", capture=FakeCapture())
    assert (report.set_ref, report.n_added) == ("new@1", 6)
    profile, created = store.profiles.build("math", source="maths", limit=16)
    assert (profile.reference, created) == ("math@1", True)
    selection = store.select("pool", profile="math", top="20%")
    assert selection.n_selected == 6
    saved = store.selections.save("best", selection)
    report_out = store.export(saved.selection(), str(tmp_path / "top.jsonl"))
    assert report_out.n_samples == 6
    rows = [json.loads(line) for line in (tmp_path / "top.jsonl").read_text().splitlines()]
    assert [row["score"] for row in rows] == selection.rows.column("score").to_pylist()
    assert store.verify().ok


def test_sql_results_in_every_form(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    result = store.sql(
        "SELECT sample_id, score FROM alignment('pool', $p) ORDER BY score LIMIT $k", {"p": "math", "k": 4}
    )
    rows = result.fetchall()
    assert len(rows) == result.arrow().num_rows == len(result.df()) == len(result.pl()) == 4
    assert [row[0] for row in rows] == result.df()["sample_id"].tolist() == result.pl()["sample_id"].to_list()


def test_sql_reads_tables_that_are_given(store: nait_store.Store) -> None:
    import pandas as pd

    wanted = pd.DataFrame({"sample_id": ["s000001", "s000003"]})
    query = "SELECT count(*) FROM samples('pool') JOIN wanted USING (sample_id)"
    assert store.sql(query, tables={"wanted": wanted}).fetchone() == (2,)


def test_scoring_ahead(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    store.profiles.build("mean", source="maths", method="mean")
    work, warnings = store.score("pool", "math", "mean")
    assert (work.n_computed, work.n_cached, warnings) == (2, 0, [])
    assert store.score("pool", "math")[0].n_cached == 1


def test_sets(store: nait_store.Store) -> None:
    assert store.sets.names() == ["maths", "pool"]
    assert [one.reference for one in store.sets.list()] == ["maths@1", "pool@1"]
    details = store.sets.show("maths")
    assert details.summary.features == ("mean", "drift")
    assert details.summary.size_bytes == sum(s.record.size_bytes for s in store.sets.open("maths").segments)
    assert [manifest.number for manifest in store.sets.history("pool")] == [1]
    with pytest.raises(NotFoundError):
        store.sets.history("pol")


def test_profiles(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths", message="first")
    store.profiles.build("math", source="maths", recipe="nait-paper")
    assert store.profiles.names() == ["math"]
    assert [one.reference for one in store.profiles.list()] == ["math@2"]
    assert [one.number for one in store.profiles.history("math")] == [1, 2]
    assert store.profiles.open("math@1").directions().shape == (2, 8)


def test_profile_of_some_samples(store: nait_store.Store) -> None:
    profile, _ = store.profiles.build("half", source="pool", where="kind = 'code'")
    assert profile.record.source.n_samples == 15
    assert profile.record.source.where == "kind = 'code'"


def test_export_to_a_stream(store: nait_store.Store) -> None:
    buffer = io.BytesIO()
    selection = store.select("pool", strategy="random", top=3, seed=1)
    report = store.export(selection, BytesTarget(buffer, "buffer"), format="ids")
    assert report.url == "buffer"
    assert buffer.getvalue().decode().splitlines() == selection.rows.column("sample_id").to_pylist()


def test_selecting_counts_and_percentages(store: nait_store.Store) -> None:
    for top, n in ((7, 7), ("7", 7), ("50%", 15), ("1%", 1)):
        assert store.select("pool", strategy="random", top=top).n_selected == n


@pytest.mark.parametrize("options", [{"strategy": "best"}, {"top": 0.1}, {"strategy": "lowest"}])
def test_bad_selections(store: nait_store.Store, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        store.select("pool", **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"features": ["mode"]}, "'mode' is not a feature"),
        ({"features": []}, "no feature"),
        ({"dtype": "int3"}, "'int3' is not a dtype"),
        ({"on_error": "ignore"}, "'ignore'"),
        ({"limit": 0}, "limit of 0"),
        ({"map": {"colour": "x"}}, "'colour'"),
        ({"hook": "brain"}, "'brain' is not a hook point"),
        ({"span": "some"}, "'some' is not a span"),
    ],
)
def test_bad_ingest_options_are_refused_before_a_model_is_loaded(
    store: nait_store.Store, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(InvalidInputError, match=says.replace("(", r"\(")):
        store.ingest(str(tmp_path / "x.jsonl"), set="new", model=str(tmp_path / "no-model"), **options)
    assert "new" not in store.sets.names()


def test_progress_is_heard(url: str, tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    store = nait_store.open(url, create=True, progress=events.append)
    (tmp_path / "x.jsonl").write_text("".join(f'{{"text": "x {i}"}}\n' for i in range(20)))
    expected = []
    store.ingest(str(tmp_path / "x.jsonl"), set="new", model="unused", capture=FakeCapture(), announce=expected.append)
    store.profiles.build("p", source="new")
    store.score("new", "p")
    store.verify()
    assert {"capture", "score", "verify"} <= {event.stage for event in events}
    assert [one.n_records for one in expected] == [20]


def test_doctor(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import nait_store.store.doctor

    answer = json.dumps({"torch": "9.9", "devices": [], "threads": 3})
    monkeypatch.setattr(nait_store.store.doctor, "_ASK_TORCH", f"print({answer!r})")
    report = store.doctor()
    assert report.ok
    assert {"python", "packages", "device", "cpu", "cache", "store", "contents", "catalog"} <= {
        check.topic for check in report.checks
    }


def test_verify_names_every_damage(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    store.selections.save("best", store.select("pool", profile="math", top=3))
    assert store.verify().ok
    damaged = [path for path, _ in store.location.walk() if path.endswith(("samples.parquet", "selection.json"))]
    for path in damaged:
        store.location.write_bytes(path, store.location.read_bytes(path)[:-1])
    report = store.verify(quick=True)
    assert not report.ok
    assert len(report.errors) >= len(damaged)
