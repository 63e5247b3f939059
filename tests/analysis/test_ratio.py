"""What the best 1 to 100 % of a set are like: against plain loops over scores, tokens and sources."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.analysis.findings import Verdict
from nait_store.analysis.ratio import RatioReport
from nait_store.cli.main import main
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.testing.stores import build_set, fake_identity
from tests.selection.choices import PROFILES, Pool, build_pool, combined

Built = tuple[nait_store.Store, Pool]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_pool(tmp_path_factory.mktemp("ratio"))


def best(pool: Pool, percent: int, name: str = "math") -> list[int]:
    """Places of the best so many per cent under one profile."""
    order, _, _ = combined(pool, [name], [1.0], "sum")
    return order[: math.ceil(percent * len(order) / 100)]


def test_points_are_those_of_the_ranked_beginnings(built: Built) -> None:
    store, pool = built
    report = store.analyses.ratio("pool", profile="math", by="source")
    (curve,) = report.curves
    scores = pool.of(["math"])[0]
    assert [point.percent for point in curve.points] == list(range(1, 101))
    for percent in (1, 2, 10, 33, 67, 99, 100):
        chosen, point = best(pool, percent), curve.at(percent)
        assert point.n_samples == len(chosen)
        assert point.threshold == min(scores[i] for i in chosen)
        assert point.mean_score == pytest.approx(sum(scores[i] for i in chosen) / len(chosen), abs=1e-12)
        assert point.n_tokens == sum(int(pool.n_tokens[i]) for i in chosen)
        assert point.mean_tokens == pytest.approx(point.n_tokens / len(chosen))
        assert point.token_share == pytest.approx(point.n_tokens / int(pool.n_tokens.sum()))
        sources = [pool.sources[i] or "" for i in chosen]
        assert point.sources == {name: sources.count(name) for name in report.sources}


def test_each_ratio_holds_what_select_chooses(built: Built) -> None:
    store, pool = built
    curve = store.analyses.ratio("pool", profile=PROFILES, combine="sum").curves[0]
    for percent in (3, 10, 45):
        chosen = store.select("pool", profile=PROFILES, combine="sum", top=f"{percent}%")
        point = curve.at(percent)
        assert (point.n_samples, point.threshold) == (chosen.n_selected, chosen.score_range[0])  # type: ignore[index]
        assert point.n_tokens == pool.tokens_of(chosen.rows.column("sample_id").to_pylist())


@pytest.mark.parametrize(
    "options",
    [{"profile": "code"}, {"profile": PROFILES, "combine": "min"}, {"profile": PROFILES[:2], "combine": "norm"}],
)
def test_the_knee_is_where_select_stops(built: Built, options: dict[str, Any]) -> None:
    store, _ = built
    (curve,) = store.analyses.ratio("pool", **options).curves
    selection = store.select("pool", knee=True, **options)
    assert curve.knee == selection.knee
    assert curve.at_knee is not None
    assert (curve.at_knee.n_samples, curve.at_knee.threshold) == (selection.n_selected, selection.score_range[0])  # type: ignore[index]


def test_several_profiles_have_a_curve_each(built: Built) -> None:
    store, pool = built
    report = store.analyses.ratio("pool", profile=PROFILES)
    assert [curve.ranked_by for curve in report.curves] == [f"{name}@1" for name in PROFILES]
    for name, curve in zip(PROFILES, report.curves, strict=True):
        assert curve.at(20).threshold == min(pool.of([name])[0][best(pool, 20, name)])


def test_a_union_has_one_curve_and_no_knee(built: Built) -> None:
    store, pool = built
    (curve,) = store.analyses.ratio("pool", profile={"math": 1, "code": 2}, combine="union").curves
    assert (curve.ranked_by, curve.profiles, curve.knee) == ("union of math@1, code@1", ("math@1", "code@1"), None)
    order, _, _ = combined(pool, ["math", "code"], [1.0, 2.0], "union")
    assert curve.at(10).n_tokens == int(pool.n_tokens[order[:9]].sum())


def test_recall_of_samples_that_a_condition_names(built: Built) -> None:
    store, pool = built
    (curve,) = store.analyses.ratio("pool", profile="math", targets="source = 'code'").curves
    wanted = [i for i, source in enumerate(pool.sources) if source == "code"]
    assert curve.n_targets == len(wanted)
    for percent in (5, 40, 100):
        assert curve.at(percent).recall == len(set(best(pool, percent)) & set(wanted)) / len(wanted)


def test_recall_of_the_samples_that_a_profile_was_built_from(built: Built) -> None:
    store, pool = built
    store.profiles.build("of-the-pool", source="pool", where="source = 'orca'")
    curve, other = store.analyses.ratio("pool", profile=["of-the-pool", "math"]).curves
    scores = dict(store.sql("SELECT sample_id, score FROM alignment('pool', 'of-the-pool')").fetchall())
    order = sorted(scores, key=lambda one: (-scores[one], one))
    own = {one for one, source in zip(pool.ids, pool.sources, strict=True) if source == "orca"}
    assert curve.n_targets == len(own)
    assert curve.at(30).recall == len(own & set(order[:27])) / len(own)
    assert (other.n_targets, other.at(30).recall) == (0, None)  # its samples are in another set only
    assert other.targets == "none of the samples that math@1 was built from is among the candidates"


def test_a_condition_limits_the_candidates(built: Built) -> None:
    store, pool = built
    kept = pool.where(pool.n_tokens > 8)
    report = store.analyses.ratio("pool", profile="math", where="n_tokens > 8")
    assert (report.n_candidates, report.n_tokens) == (len(kept.ids), int(kept.n_tokens.sum()))
    assert report.curves[0].at(10).threshold == min(kept.of(["math"])[0][best(kept, 10)])


def test_equal_scores_have_no_knee_but_points(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    build_set(store.location, "pool", 2)
    build_set(store.location, "maths", 8, first=100)
    store.profiles.build("math", source="maths")
    (curve,) = store.analyses.ratio("pool", profile="math").curves
    assert curve.knee is None
    assert "have no knee" in curve.no_knee
    assert [curve.at(percent).n_samples for percent in (1, 50, 51, 100)] == [1, 1, 2, 2]


def test_many_values_are_counted_as_far_as_they_are_frequent(built: Built) -> None:
    store, pool = built
    report = store.analyses.ratio("pool", profile="math", by="sample_id")
    assert len(report.sources) == 12
    assert report.n_other_sources == len(pool.ids) - 12
    assert sum(report.curves[0].at(100).sources.values()) == 12


def verdicts(report: RatioReport) -> dict[str, Verdict]:
    return {finding.topic: finding.verdict for finding in report.findings}


def test_findings_warn_of_length_and_of_one_source(tmp_path: Path) -> None:
    """A profile of the direction along which the long samples of one source lie."""
    store = nait_store.open(str(tmp_path / "store"), create=True)
    shift = np.zeros((2, 8), dtype=np.float32)
    shift[:, 0] = 50
    build_set(store.location, "pool", 40, user_fields={"source": ["short"] * 40})
    build_set(store.location, "pool", 10, first=3000, mean=shift, user_fields={"source": ["long"] * 10})
    build_set(store.location, "maths", 20, first=100, mean=shift, seed=1)
    store.profiles.build("math", source="maths")
    found = verdicts(store.analyses.ratio("pool", profile="math", by="source", targets="source = 'long'"))
    assert found == {"knee": "ok", "length": "ok", "sources": "warning", "targets": "ok"}
    found = verdicts(store.analyses.ratio("pool", profile="math", targets="source = 'short'"))
    assert (found["sources"], found["targets"]) == ("skipped", "warning")
    found = verdicts(store.analyses.ratio("pool", profile="math"))
    assert found["targets"] == "skipped"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"profile": []}, InvalidInputError, "no profile to rank by"),
        ({"profile": "mth"}, NotFoundError, "no profile 'mth'"),
        ({"profile": "math:2"}, InvalidInputError, "has a weight"),
        ({"profile": "math", "combine": "sum"}, InvalidInputError, "for several profiles"),
        ({"profile": "math", "combine": "mean"}, InvalidInputError, "'mean' is not a way to combine"),
        ({"profile": ["math", "math@1"], "combine": "sum"}, InvalidInputError, "named twice"),
        ({"profile": "math", "by": "nothing"}, NotFoundError, "no column"),
        ({"profile": "math", "where": "n_tokens > 1e9"}, InvalidInputError, "nothing to select"),
        ({"profile": "math", "where": "n_tokens"}, InvalidInputError, "not true or false"),
        ({"profile": "math", "targets": "true); DROP TABLE x"}, InvalidInputError, "not one SQL expression"),
        ({"profile": "foreign"}, IncompatibleError, "foreign@1"),
    ],
)
def test_bad_input_is_refused(built: Built, options: dict[str, Any], error: type[Exception], message: str) -> None:
    store, _ = built
    if options["profile"] == "foreign" and "foreign" not in store.profiles.registry.names():
        build_set(store.location, "elsewhere", 8, first=5000, identity=fake_identity("other"))
        store.profiles.build("foreign", source="elsewhere")
    with pytest.raises(error, match=message):
        store.analyses.ratio("pool", **options)


def test_scores_that_are_not_finite_are_refused(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    from nait_store.analysis import ratio
    from nait_store.selection.choosing import select

    def lost(*arguments: Any) -> Any:
        selection = select(*arguments)
        scores = pa.array([math.nan, *selection.rows.column("score").to_pylist()[1:]])
        object.__setattr__(selection, "rows", selection.rows.set_column(2, "score", scores))
        return selection

    monkeypatch.setattr(ratio, "select", lost)
    with pytest.raises(InvalidInputError, match=r"1 scores of pool@1 under math@1 are not finite"):
        built[0].analyses.ratio("pool", profile="math")


def run(store: nait_store.Store, *arguments: str) -> int:
    return main(["--store", store.url, "analyze", "ratio", "pool", *arguments])


def test_the_command_shows_the_chosen_ratios_and_the_knee(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(built[0], "--profile", "math", "--by", "source", "--show", "50%,10") == 0
    out = capsys.readouterr().out
    assert out.startswith("pool@1: 90 candidates, ")
    lines = out.splitlines()
    header = next(line.split() for line in lines if line.startswith("ratio"))
    assert header[-4:] == [
        name or "(none)" for name in built[0].analyses.ratio("pool", profile="math", by="source").sources
    ]
    ratios = [line.split()[0] for line in lines if line and line[0].isdigit()]
    assert [one for one in ratios if one in ("10%", "50%")] == ["10%", "50%"]
    assert sum("(knee)" in line for line in lines) == 1


def test_json_has_every_ratio_and_the_findings(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(built[0], "--profile", "math", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert len(value["curves"][0]["points"]) == 100
    assert {finding["topic"] for finding in value["findings"]} == {"knee", "length", "sources", "targets"}


def test_the_rows_are_written_to_a_file(
    built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(built[0], "--profile", "math", "--profile", "code", "--out", "curve.jsonl") == 0
    rows = [json.loads(line) for line in Path("curve.jsonl").read_text().splitlines()]
    curve = built[0].analyses.ratio("pool", profile="code").curves[0]
    assert len(rows) == 200
    assert (rows[149]["ranked_by"], rows[149]["percent"]) == ("code@1", 50.0)
    assert rows[149]["threshold"] == curve.at(50).threshold
    assert json.loads(rows[149]["sources"]) == curve.at(50).sources
    assert run(built[0], "--profile", "math", "--out", "curve.jsonl") == 4  # it exists
    assert run(built[0], "--profile", "math", "--show", "0,200") == 7
    capsys.readouterr()
