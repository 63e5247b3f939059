"""What batches and tokens do to scores: against forward passes of each sample alone, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, AutoTokenizer

from nait_store.analysis import recapture as recapture_module
from nait_store.analysis.audit import RecaptureAudit, SetAudit, Skipped
from nait_store.analysis.recapture import capture_in_groups
from nait_store.analysis.token_effects import TokenEffects
from nait_store.capture.conversations import make_sample
from nait_store.capture.rendering import PreparedSample, Renderer
from nait_store.capture.source_records import SourceRecord
from nait_store.schemas.capture import SpanEdges
from nait_store.schemas.profile import Metric
from nait_store.scoring.targets import ScoringTarget
from tests.analysis.conftest import MAX_LENGTH_TOKENS, Audited, records, token_vectors, write


def again(audited: Audited, set_ref: str, *profiles: str, samples: int = 32) -> RecaptureAudit:
    found = audited.store.analyses.audit(set_ref, *profiles, samples=samples).recaptured
    assert isinstance(found, RecaptureAudit)
    return found


class Reference:
    """Samples of a set as a model of transformers itself sees them, each alone."""

    def __init__(self, audited: Audited, set_ref: str, model: str, template: str) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(audited.folder / model)
        self.tokenizer = AutoTokenizer.from_pretrained(audited.folder / model)
        found = audited.store.sql(f"SELECT record FROM samples('{set_ref}') ORDER BY row_id").fetchall()
        import json

        self.samples = [make_sample(SourceRecord(json.loads(text), "x", 0), id_field="key") for (text,) in found]
        self.template = template

    def prepared(self, edges: SpanEdges = SpanEdges.CONTENT, template: str | None = None) -> list[PreparedSample]:
        renderer = Renderer(
            self.tokenizer,
            template=template or self.template,
            span_edges=edges,
            max_length_tokens=MAX_LENGTH_TOKENS,
        )
        found = renderer.prepare(self.samples)
        assert all(isinstance(one, PreparedSample) for one in found)
        return found  # type: ignore[return-value]

    def content(self, one: PreparedSample) -> NDArray[np.float64]:
        """[L, K, J]"""
        places = [place for start, stop in one.content for place in range(start, stop)]
        return token_vectors(self.model, one.token_ids.tolist())[:, places]


def target_of(audited: Audited, profile: str) -> ScoringTarget:
    return audited.store.profiles.open(profile).target()


def score(A: NDArray[np.float64], target: ScoringTarget) -> float:
    """Of one sample's activations [L, J], layer by layer."""
    total = 0.0
    for place, layer in enumerate(target.layers):
        a = A[layer] - (0 if target.offset is None else target.offset[place].astype(np.float64))
        norm = np.sqrt((a * a).sum()) if target.metric is Metric.COSINE else 1.0
        total += float((a * target.directions[place]).sum() / norm)
    return total


def part(term: NDArray[np.float64], A: NDArray[np.float64], target: ScoringTarget) -> float:
    """What a term of the activations [L, J] gives to the score of the whole."""
    total = 0.0
    for place, layer in enumerate(target.layers):
        a = A[layer] - (0 if target.offset is None else target.offset[place].astype(np.float64))
        norm = np.sqrt((a * a).sum()) if target.metric is Metric.COSINE else 1.0
        total += float((term[layer] * target.directions[place]).sum() / norm)
    return total


def share(parts: Sequence[float], scores: Sequence[float]) -> float:
    return float(np.cov(parts, scores, bias=True)[0, 1] / np.var(scores))


@pytest.mark.parametrize("profile", ["math", "cosine"])
def test_the_first_token_makes_the_share_that_its_own_vector_gives(audited: Audited, profile: str) -> None:
    found = again(audited, "pool", profile, samples=200).effects[f"{profile}@1"].first
    reference, target = Reference(audited, "pool", "model", "plain"), target_of(audited, profile)
    vectors = [reference.content(one) for one in reference.prepared()]
    means = [one.mean(axis=1) for one in vectors]
    scores = [score(A, target) for A in means]
    parts = [part(one[:, 0] / one.shape[1], A, target) for one, A in zip(vectors, means, strict=True)]
    without = [score(one[:, 1:].mean(axis=1), target) for one in vectors]
    assert found is not None
    assert found.n_samples == len(vectors)
    assert found.variance_share == pytest.approx(share(parts, scores), abs=1e-4)
    assert found.rank_correlation == pytest.approx(spearmanr(scores, without).statistic, abs=2e-3)


def test_a_drift_is_less_by_its_first_token(audited: Audited) -> None:
    audited.store.profiles.build("drifting", source="drifts", recipe="nait-paper", feature="drift")
    found = again(audited, "drifts", "drifting").effects["drifting@1"].first
    reference, target = Reference(audited, "drifts", "model", "plain"), target_of(audited, "drifting")
    vectors = [reference.content(one) for one in reference.prepared()]
    drifts = [one[:, -1] - one[:, 0] for one in vectors]
    parts = [part(-one[:, 0], A, target) for one, A in zip(vectors, drifts, strict=True)]
    assert found is not None
    assert found.variance_share == pytest.approx(share(parts, [score(A, target) for A in drifts]), abs=1e-4)
    assert found.rank_correlation is None


def test_bos_is_taken_off_where_samples_begin_with_it(audited: Audited) -> None:
    found = again(audited, "chat", "chat")
    reference, target = Reference(audited, "chat", "chat-model", "chat"), target_of(audited, "chat")
    prepared = reference.prepared()
    scores = [score(reference.content(one).mean(axis=1), target) for one in prepared]
    without = []
    for one in prepared:
        places = [place - 1 for start, stop in one.content for place in range(start, stop)]
        vectors = token_vectors(reference.model, one.token_ids.tolist()[1:])
        without.append(score(vectors[:, places].mean(axis=1), target))
    effect = found.effects["chat@1"].bos
    assert (found.span.n_with_bos, found.span.n_bos_in_span) == (len(prepared), 0)
    assert effect is not None
    assert effect.rank_correlation == pytest.approx(spearmanr(scores, without).statistic, abs=1e-6)


def test_a_template_outside_of_the_span_is_left_out_by_capturing_without_it(audited: Audited) -> None:
    effect = again(audited, "chat", "chat").effects["chat@1"].template
    reference, target = Reference(audited, "chat", "chat-model", "chat"), target_of(audited, "chat")
    scores, plain = (
        [score(reference.content(one).mean(axis=1), target) for one in prepared]
        for prepared in (reference.prepared(), reference.prepared(template="plain"))
    )
    assert effect is not None
    assert (effect.variance_share, effect.n_samples) == (None, len(scores))
    assert effect.rank_correlation == pytest.approx(spearmanr(scores, plain).statistic, abs=1e-6)


def test_a_template_in_the_span_makes_the_share_of_its_tokens(audited: Audited) -> None:
    found = again(audited, "rendered", "rendered")
    effect = found.effects["rendered@1"].template
    reference, target = Reference(audited, "rendered", "chat-model", "chat"), target_of(audited, "rendered")
    scores, own_scores, parts = [], [], []
    for whole, own in zip(reference.prepared(SpanEdges.RENDERED), reference.prepared(), strict=True):
        A, mine = reference.content(whole).mean(axis=1), reference.content(own)
        scores.append(score(A, target))
        own_scores.append(score(mine.mean(axis=1), target))
        parts.append(part(A - mine.sum(axis=1) / whole.n_tokens, A, target))
    assert effect is not None
    assert effect.variance_share == pytest.approx(share(parts, scores), abs=1e-4)
    assert effect.rank_correlation == pytest.approx(spearmanr(scores, own_scores).statistic, abs=1e-6)
    assert (found.span.n_bos_in_span, found.effects["rendered@1"].bos) == (len(scores), None)


def test_a_plain_template_and_no_bos_have_no_effect(audited: Audited) -> None:
    found = again(audited, "pool", "math")
    assert isinstance(found.effects["math@1"], TokenEffects)
    assert (found.effects["math@1"].bos, found.effects["math@1"].template) == (None, None)


def test_facts_about_the_span_are_those_of_the_tokens(audited: Audited) -> None:
    span = again(audited, "chat").span
    reference = Reference(audited, "chat", "chat-model", "chat")
    prepared = reference.prepared()
    tokens = [one.token_ids.tolist() for one in prepared]
    shared = next(i for i in range(99) if len({tuple(ids[: i + 1]) for ids in tokens}) > 1)
    assert span.shared_prefix_tokens == shared > 1
    n_tokens, n_content = sum(map(len, tokens)), sum(one.n_content_tokens for one in prepared)
    assert span.template_share == pytest.approx(1 - n_content / n_tokens)
    ratios = []
    for one in prepared:
        vectors = reference.content(one)
        ratios.append(np.linalg.norm(vectors[:, 0], axis=1) / np.linalg.norm(vectors[:, 1:].mean(axis=1), axis=1))
    by_layer = np.median(ratios, axis=0)
    assert (span.first_norm_layer, span.n_first_at_start) == (int(by_layer.argmax()), 0)
    assert span.first_norm_ratio == pytest.approx(by_layer.max(), rel=1e-4)


def test_samples_captured_again_are_those_that_are_stored(audited: Audited) -> None:
    found: SetAudit = audited.store.analyses.audit("pool", "math", by="source", samples=12)
    assert isinstance(found.recaptured, RecaptureAudit)
    check = found.recaptured.batches
    assert (check.n_samples, check.n_other_tokens, set(check.from_stored)) == (12, 0, {"alone", "together", "mixed"})
    assert set(check.from_alone) == {"together", "mixed"}
    assert check.stored_tolerance == pytest.approx(2e-3)
    assert max(one.error for one in check.from_stored.values()) < 1e-3
    assert check.agrees
    assert {one.topic: one.verdict for one in found.findings}["batches"] == "ok"


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_rounding_to_what_is_stored_is_no_difference(audited: Audited, dtype: str) -> None:
    audited.store.ingest(
        str(audited.folder / "few.jsonl"),
        set=dtype,
        model=str(audited.folder / "model"),
        id_field="key",
        max_length=MAX_LENGTH_TOKENS,
        device="cpu",
        dtype=dtype,
        token_budget=1,
    )
    assert again(audited, dtype, samples=8).batches.from_stored["alone"].error < 1e-3


def test_a_set_that_keeps_projections_is_compared_among_batches_only(audited: Audited) -> None:
    store = audited.store
    store.ingest(
        str(audited.folder / "few.jsonl"),
        set="projected",
        model=str(audited.folder / "model"),
        id_field="key",
        max_length=MAX_LENGTH_TOKENS,
        device="cpu",
        keep_features="none",
        score_with="math",
    )
    found = again(audited, "projected", "math")
    assert found.batches.from_stored == {}
    assert found.batches.agrees
    assert found.effects["math@1"].first is not None


def spoilt(monkeypatch: pytest.MonkeyPatch, factor: Any) -> None:
    """Let the numbers depend on how many samples may share a batch."""

    def capture(session: Any, prepared: Any, groups: Any) -> Any:
        found = capture_in_groups(session, prepared, groups)
        return {feature: (values * factor(len(groups[0]))).astype(np.float32) for feature, values in found.items()}

    monkeypatch.setattr(recapture_module, "capture_in_groups", capture)


def batches(audited: Audited) -> tuple[RecaptureAudit, str, str]:
    found = audited.store.analyses.audit("pool", samples=8)
    assert isinstance(found.recaptured, RecaptureAudit)
    (finding,) = [one for one in found.findings if one.topic == "batches"]
    return found.recaptured, finding.verdict, finding.next_step


def test_numbers_that_depend_on_the_batch_are_a_warning(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch, lambda n: 1 if n == 1 else 1 + n / 1000)
    found, verdict, next_step = batches(audited)
    assert found.batches.from_alone["together"].error == pytest.approx(8e-3, rel=1e-2)
    assert found.batches.from_alone["mixed"].error == pytest.approx(4e-3, rel=1e-2)
    assert found.batches.from_stored["alone"].error < 1e-3
    assert (verdict, "--token-budget 1" in next_step) == ("warning", True)


def test_numbers_that_are_not_the_stored_ones_are_a_warning(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch, lambda _: 1.01)
    found, verdict, next_step = batches(audited)
    assert found.batches.from_alone["together"].error < 1e-3
    assert found.batches.from_stored["alone"].error == pytest.approx(1e-2, rel=0.1)
    assert (verdict, "verify" in next_step) == ("warning", True)


def test_other_tokens_than_at_the_time_are_a_warning(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    recalled = recapture_module._recalled

    def shifted(rows: Any) -> Any:
        samples, lengths = recalled(rows)
        return samples, [(lengths[0][0] + 1, lengths[0][1]), *lengths[1:]]

    monkeypatch.setattr(recapture_module, "_recalled", shifted)
    found, verdict, next_step = batches(audited)
    assert (found.batches.n_other_tokens, verdict, "tokenizer" in next_step) == (1, "warning", True)


def test_numbers_that_are_not_finite_skip_the_check(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    from nait_store.capture.session import CaptureSession

    capture = CaptureSession.capture

    def poisoned(self: CaptureSession, samples: Any) -> Any:
        for batch in capture(self, samples):
            next(iter(batch.features.values()))[0, 0, 0] = np.nan
            yield batch

    monkeypatch.setattr(CaptureSession, "capture", poisoned)
    found = audited.store.analyses.audit("pool", samples=4)
    assert isinstance(found.recaptured, Skipped)
    assert "NaN or infinity" in found.recaptured.why


def test_a_lone_sample_has_no_correlations(audited: Audited) -> None:
    store = audited.store
    lone = write(audited.folder / "lone.jsonl", records(1, "lone", seed=5))
    store.ingest(lone, set="lone", model=str(audited.folder / "model"), max_length=MAX_LENGTH_TOKENS, device="cpu")
    found = store.analyses.audit("lone", "math")
    verdicts = {one.topic: one.verdict for one in found.findings}
    assert (verdicts["batches"], verdicts["first token"], verdicts["length"]) == ("ok", "skipped", "skipped")


def test_a_sample_that_memory_does_not_hold_skips_the_check(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    from nait_store.capture.session import CaptureSession

    monkeypatch.setattr(CaptureSession, "capture", lambda self, samples: iter(()))
    found = audited.store.analyses.audit("pool", samples=4)
    assert isinstance(found.recaptured, Skipped)
    assert "gave nothing" in found.recaptured.why
