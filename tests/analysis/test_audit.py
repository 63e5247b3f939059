"""What makes the scores of a set, from what is stored: against SciPy, NumPy and plain loops."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

import nait_store
from nait_store.analysis import audit as audit_module
from nait_store.analysis.audit import RecaptureAudit, SetAudit, Skipped
from nait_store.analysis.audited_scores import SampleColumns
from nait_store.analysis.findings import Verdict
from nait_store.analysis.repeated_texts import RepeatedTexts
from nait_store.cli.main import main
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.schemas.capture import Feature
from nait_store.testing.stores import build_segment, build_set, fake_identity, fake_row, fake_set_record
from tests.analysis.conftest import MAX_LENGTH_TOKENS, N_POOL, Audited


def audit(audited: Audited, *profiles: str, by: str = "source", **options: Any) -> SetAudit:
    return audited.store.analyses.audit("pool", *profiles, by=by, recapture=False, **options)


def rows(store: nait_store.Store, profile: str) -> list[dict[str, Any]]:
    """Samples with their scores, best first."""
    query = (
        "SELECT sample_id, source, n_tokens, n_content_tokens, truncated, score "
        f"FROM samples('pool') JOIN alignment('pool', '{profile}') USING (sample_id)"
    )
    return sorted(store.sql(query).to_dicts(), key=lambda row: (-row["score"], row["sample_id"]))


def verdicts(found: SetAudit, profile: str = "") -> dict[str, Verdict]:
    return {one.topic: one.verdict for one in found.findings if one.of == profile}


def test_correlations_with_length_are_scipys(audited: Audited) -> None:
    (scores,) = audit(audited, "math").profiles
    samples = rows(audited.store, "math")
    values = [row["score"] for row in samples]
    tokens, content = ([row[name] for row in samples] for name in ("n_tokens", "n_content_tokens"))
    assert scores.length.pearson == pytest.approx(pearsonr(values, tokens).statistic, abs=1e-12)
    assert scores.length.spearman == pytest.approx(spearmanr(values, tokens).statistic, abs=1e-12)
    assert scores.length.spearman_content == pytest.approx(spearmanr(values, content).statistic, abs=1e-12)
    assert scores.length.mean_tokens == pytest.approx(sum(tokens) / len(tokens))
    n_best = math.ceil(len(tokens) / 10)
    assert scores.length.mean_tokens_of_best == pytest.approx(sum(tokens[:n_best]) / n_best)


def test_tenths_by_length_hold_the_shortest_samples_first(audited: Audited) -> None:
    classes = audit(audited, "math").profiles[0].length.by_length
    samples = sorted(rows(audited.store, "math"), key=lambda row: (row["n_tokens"], row["sample_id"]))
    for place, one in enumerate(classes):
        tenth = samples[4 * place : 4 * place + 4]  # of 40
        assert one.n_samples == 4
        assert one.mean_tokens == pytest.approx(sum(row["n_tokens"] for row in tenth) / 4)
        assert one.mean_score == pytest.approx(sum(row["score"] for row in tenth) / 4)
    assert len(classes) == 10


def test_scores_by_source_are_those_of_plain_loops(audited: Audited) -> None:
    (scores,) = audit(audited, "cosine").profiles
    samples = rows(audited.store, "cosine")
    best = samples[: math.ceil(len(samples) / 10)]
    assert scores.edges == pytest.approx(np.linspace(samples[-1]["score"], samples[0]["score"], 11))
    assert [one.value for one in scores.sources] == ["short", "long"]
    for one in scores.sources:
        own = [row["score"] for row in samples if row["source"] == one.value]
        others = [row["score"] for row in samples if row["source"] != one.value]
        wins = sum((a > b) + 0.5 * (a == b) for a in own for b in others)
        assert one.auc == pytest.approx(wins / len(own) / len(others), abs=1e-12)
        assert (one.n_samples, one.n_best) == (len(own), sum(row["source"] == one.value for row in best))
        assert one.mean_score == pytest.approx(sum(own) / len(own))
        assert one.counts == tuple(np.histogram(own, scores.edges)[0])


def test_truncated_samples_are_counted_in_all_and_among_the_best(audited: Audited) -> None:
    found = audit(audited, "math")
    samples = rows(audited.store, "math")
    assert found.n_truncated == sum(row["truncated"] for row in samples) > 0
    assert found.max_length_tokens == MAX_LENGTH_TOKENS
    (scores,) = found.profiles
    assert scores.n_truncated_of_best == sum(row["truncated"] for row in samples[: scores.n_best])
    share = found.n_truncated / found.n_samples
    assert (verdicts(found)["truncation"] == "warning") == (share >= 0.05)


def test_samples_with_one_text_are_repeats_whatever_their_ids(audited: Audited) -> None:
    found = audit(audited)
    texts = Counter((row["question"], row["answer"]) for row in audited.pool)
    (most, n_most), _ = texts.most_common(2)
    assert isinstance(found.repeats, RepeatedTexts)
    assert (found.repeats.n_samples, found.repeats.n_texts, found.repeats.largest) == (N_POOL, len(texts), n_most)
    same = {row["key"] for row in audited.pool if (row["question"], row["answer"]) == most}
    assert len(found.repeats.examples) == 3
    assert set(found.repeats.examples) <= same
    assert verdicts(found)["duplicates"] == "warning"  # 4 of 40


def test_deleted_samples_are_no_repeats(audited: Audited, tmp_path: Path) -> None:
    copy = nait_store.open(str(shutil.copytree(audited.folder / "store", tmp_path / "store")))
    copy.sets.delete_samples("pool", where="sample_id LIKE 'again%'")
    found = copy.analyses.audit("pool", recapture=False)
    assert isinstance(found.repeats, RepeatedTexts)
    assert (found.repeats.n_repeats, found.repeats.examples) == (0, ())
    assert verdicts(found)["duplicates"] == "ok"


def test_a_record_without_text_skips_the_repeats(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    rows = [fake_row("a", 0, {"number": 1}), fake_row("b", 1, {"number": 2})]
    store.sets.versions.create(fake_set_record("pool"))
    segment = build_segment(store.location, "pool", rows, {Feature.MEAN: np.ones((2, 2, 8), dtype=np.float32)})
    store.sets.versions.commit("pool", [segment], ingest_ids=())
    found = store.analyses.audit("pool", recapture=False)
    assert isinstance(found.repeats, Skipped)
    assert verdicts(found)["duplicates"] == "skipped"


def test_without_a_profile_those_with_stored_scores_are_taken(audited: Audited, tmp_path: Path) -> None:
    copy = nait_store.open(str(shutil.copytree(audited.folder / "store", tmp_path / "store")))
    copy.score_cache.prune(everything=True)
    found = copy.analyses.audit("pool", recapture=False)
    assert found.profiles == ()
    assert verdicts(found)["scores"] == "skipped"
    copy.profiles.build("math", source="maths", metric="cosine")
    copy.score("pool", "math@1", "math@2")
    assert [one.profile for one in copy.analyses.audit("pool", recapture=False).profiles] == ["math@2"]


def test_missing_scores_of_a_named_profile_are_computed(audited: Audited, tmp_path: Path) -> None:
    copy = nait_store.open(str(shutil.copytree(audited.folder / "store", tmp_path / "store")))
    copy.score_cache.prune(everything=True)
    found = copy.analyses.audit("pool", "math", recapture=False)
    assert found.profiles[0].highest == rows(audited.store, "math")[0]["score"]


def test_one_source_is_no_finding(audited: Audited) -> None:
    found = audit(audited, "math", by="source_uri")
    assert (found.n_sources, found.profiles[0].sources[0].auc) == (1, None)
    assert verdicts(found, "math@1")["sources"] == "skipped"


def test_a_source_that_tells_the_score_is_a_warning(tmp_path: Path) -> None:
    """Scores that one source's samples have by their mean, and that grow with their length."""
    store = nait_store.open(str(tmp_path / "store"), create=True)
    shift = np.zeros((2, 8), dtype=np.float32)
    shift[:, 0] = 30
    build_set(store.location, "pool", 30, user_fields={"source": ["plain"] * 30})
    build_set(store.location, "pool", 10, first=30, mean=shift, user_fields={"source": ["shifted"] * 10})
    build_set(store.location, "maths", 20, first=100, mean=shift, seed=1)
    store.profiles.build("math", source="maths", metric="dot")
    found = store.analyses.audit("pool", "math", by="source", recapture=False)
    (finding,) = [one for one in found.findings if one.topic == "sources"]
    assert (finding.verdict, "(plain, shifted)" in finding.next_step) == ("warning", True)
    assert not found.ok


def test_scores_that_are_not_finite_are_a_warning_and_left_out(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SampleColumns.read.__func__  # type: ignore[attr-defined]

    def spoilt(*arguments: Any) -> SampleColumns:
        columns = read(SampleColumns, *arguments)
        scores = columns.scores.copy()
        scores[0, :3] = (math.nan, math.inf, -math.inf)
        return dataclasses.replace(columns, scores=scores)

    monkeypatch.setattr(audit_module.SampleColumns, "read", staticmethod(spoilt))
    found = audit(audited, "math")
    assert (found.profiles[0].n_samples, found.profiles[0].n_not_finite) == (N_POOL - 3, 3)
    assert math.isfinite(found.profiles[0].highest)
    assert verdicts(found, "math@1")["scores"] == "warning"


def test_equal_scores_are_a_warning(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    build_set(store.location, "pool", 1)
    build_set(store.location, "maths", 8, first=100)
    store.profiles.build("math", source="maths")
    found = store.analyses.audit("pool", "math", recapture=False)
    assert (found.profiles[0].edges, verdicts(found, "math@1")["scores"]) == ((), "warning")
    assert verdicts(found, "math@1")["length"] == "skipped"


@pytest.mark.parametrize(
    ("set_ref", "profiles", "options", "error", "message"),
    [
        ("pol", (), {}, NotFoundError, "no set 'pol'"),
        ("pool", ("mth",), {}, NotFoundError, "no profile 'mth'"),
        ("pool", ("chat",), {}, IncompatibleError, "chat@1"),
        ("pool", (), {"by": "nothing"}, NotFoundError, "no column"),
        ("pool", (), {"samples": 1}, InvalidInputError, "from 2 to 1,024"),
        ("pool", (), {"samples": 5000}, InvalidInputError, "from 2 to 1,024"),
    ],
)
def test_bad_input_is_refused(
    audited: Audited,
    set_ref: str,
    profiles: tuple[str, ...],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error) as raised:
        audited.store.analyses.audit(set_ref, *profiles, **options)
    assert message in str(raised.value)


def test_a_set_without_a_sample_is_refused(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    build_set(store.location, "pool", 3)
    store.sets.delete_samples("pool", where="true", allow_empty=True)
    with pytest.raises(InvalidInputError, match="pool@2 has no sample"):
        store.analyses.audit("pool")


def test_a_model_that_is_gone_skips_what_needs_it(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    build_set(store.location, "pool", 12, identity=fake_identity("gone"))
    found = store.analyses.audit("pool")
    assert isinstance(found.recaptured, Skipped)
    assert "./fake-model cannot be loaded" in found.recaptured.why
    assert verdicts(found)["batches, tokens"] == "skipped"
    assert verdicts(found)["truncation"] == "warning"  # 2 of 12
    with pytest.raises(NotFoundError):
        store.analyses.audit("pool", model=str(tmp_path / "nowhere"))


def test_another_model_skips_what_needs_the_right_one(audited: Audited, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(audited.folder, tmp_path / "copy"))
    found = audited.store.analyses.audit("pool", model=str(copy / "model"), samples=2)
    assert isinstance(found.recaptured, RecaptureAudit)  # moved, but the same
    with pytest.raises(IncompatibleError, match=r"pool@1 was captured with .* differs in tokenizer_fingerprint"):
        audited.store.analyses.audit("pool", model=str(copy / "chat-model"), samples=2)


def run(audited: Audited, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["--store", audited.store.url, "analyze", "audit", "pool", "--no-recapture", *arguments])
    return code, capsys.readouterr().out


def test_the_command_shows_findings_and_the_histogram(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(audited, capsys, "--profile", "math", "--by", "source")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "pool@1: 40 samples"
    assert {line.split()[0] for line in lines[2:6]} <= {"ok", "warning", "skipped", "→"}
    table = lines[lines.index("scores under math@1 by source") + 1 :]
    assert table[0].split() == ["score", "short", "long"]
    assert sum(int(line.split()[-1]) for line in table[1:]) == sum(row["source"] == "long" for row in audited.pool)


def test_json_has_the_verdict_and_the_numbers(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(audited, capsys, "--profile", "math", "--json")
    value = json.loads(out)
    assert (code, value["ok"], value["n_samples"]) == (0, False, N_POOL)
    assert value["recaptured"]["why"] == "no sample was captured again, as asked"
    assert value["profiles"][0]["length"]["spearman"] == audit(audited, "math").profiles[0].length.spearman
