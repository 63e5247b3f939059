"""What the audit of a set says, in sentences; every threshold is a rule of thumb, stated with its constant."""

from __future__ import annotations

from collections.abc import Iterator

from nait_store.analysis.audit import RecaptureAudit, SetAudit, Skipped
from nait_store.analysis.audited_scores import BEST_PERCENT, ProfileScores
from nait_store.analysis.findings import Finding
from nait_store.analysis.recapture import BatchSpotCheck
from nait_store.analysis.token_effects import SpanFacts, TokenEffect
from nait_store.registry.quality import LARGE_LENGTH_CORRELATION
from nait_store.schemas.profile import Metric

LARGE_TRUNCATED_SHARE = 0.05
"""One sample in twenty is known by its beginning only."""
LARGE_REPEATED_SHARE = 0.01
"""One sample in a hundred is trained on twice."""
CLEAR_AUC = 0.95
"""So often does a sample of one source score higher than another one: the source nearly tells the score."""
LARGE_VARIANCE_SHARE = 0.25
"""A quarter of what tells scores apart, as for length."""
SMALL_RANK_CORRELATION = 0.9
"""Below it more than one pair of samples in eight changes places (by Kendall's measure of normal scores)."""
_SHOWN_SOURCES = 4


def audit_findings(audit: SetAudit) -> tuple[Finding, ...]:
    """Judge what an audit found: the set first, then the profiles one by one.

    Parameters
    ----------
    audit
        What was found.
    """
    return tuple(_findings(audit))


def _findings(audit: SetAudit) -> Iterator[Finding]:
    yield _truncation(audit)
    yield _repeats(audit)
    again = audit.recaptured
    if isinstance(again, Skipped):
        yield Finding.skipped("batches, tokens", "", again.why, again.next_step)
    else:
        yield _batches(again.batches)
        yield _span(again.span, audit)
    if not audit.profiles:
        yield Finding.skipped(
            "scores", "", f"no profile's scores of {audit.set_ref} are stored", "name a profile: --profile NAME"
        )
    for scores in audit.profiles:
        yield from _of_profile(audit, scores)


def _of_profile(audit: SetAudit, scores: ProfileScores) -> Iterator[Finding]:
    yield _scores(scores)
    yield _length(scores)
    yield _sources(audit, scores)
    yield _truncated_best(audit, scores)
    if isinstance(audit.recaptured, RecaptureAudit):
        effects = audit.recaptured.effects[scores.profile]
        span = audit.recaptured.span
        yield _effect("first token", scores.profile, effects.first, "there is none", _first_step(audit, span))
        yield _effect(
            "BOS",
            scores.profile,
            effects.bos,
            "the samples begin with a special token that their span holds: see 'template'"
            if span.n_bos_in_span
            else "no special token begins the samples",
            "scores compare only where it is there, or not, alike: keep the tokenizer's setting, also in other tools",
        )
        yield _effect(
            "template",
            scores.profile,
            effects.template,
            "the template is plain: it adds no text to a sample's own",
            "capture with --span-edges content, which leaves the template's tokens out of the span"
            if audit.span_edges == "rendered"
            else "the ranking is one of this template: choose with the template that you train with",
        )


def _truncation(audit: SetAudit) -> Finding:
    share = audit.n_truncated / audit.n_samples
    return Finding.judged(
        "truncation",
        "",
        f"{audit.n_truncated:,} of {audit.n_samples:,} samples ({_percent(share)}) were cut at "
        f"{audit.max_length_tokens:,} tokens",
        warn=share >= LARGE_TRUNCATED_SHARE,
        next_step='ingest into a new set with a larger --max-length, or leave them out: --where "NOT truncated"',
    )


def _repeats(audit: SetAudit) -> Finding:
    repeats = audit.repeats
    if isinstance(repeats, Skipped):
        return Finding.skipped("duplicates", "", repeats.why, repeats.next_step)
    share = repeats.n_repeats / repeats.n_samples
    text = (
        f"{repeats.n_repeats:,} of {repeats.n_samples:,} samples ({_percent(share)}) have the very text of another one"
    )
    if repeats.n_repeats:
        text += (
            f"; the most frequent text has {repeats.largest:,} samples ({', '.join(repeats.examples)}"
            f"{', …' if repeats.largest > len(repeats.examples) else ''})"
        )
    return Finding.judged(
        "duplicates",
        "",
        text,
        warn=share >= LARGE_REPEATED_SHARE,
        next_step="leave repeats out of what is chosen: --drop-duplicates exact, or near",
    )


def _batches(check: BatchSpotCheck) -> Finding:
    parts = []
    if check.n_other_tokens:
        parts.append(
            f"{check.n_other_tokens:,} of {check.n_samples:,} samples have other tokens now than when captured"
        )
    if check.from_stored:
        name, worst = max(check.from_stored.items(), key=lambda item: item[1].error)
        found = "what is stored comes out exactly"
        if worst.error:
            found = (
                f"largest relative error from what is stored {worst.error:.1e} (captured {name}: {worst.feature} of "
                f"layer {worst.layer}, sample {worst.sample_id})"
            )
        parts.append(f"{found}; tolerance {check.stored_tolerance:.1e}")
    name, worst = max(check.from_alone.items(), key=lambda item: item[1].error)
    found = "together and mixed, each is exactly what it is alone"
    if worst.error:
        found = f"{name}, a sample is at most {worst.error:.1e} away from what it is alone"
    parts.append(f"{found}; tolerance {check.computing_tolerance:.1e} ({check.layout} batches)")
    if check.n_other_tokens:
        step = "another release of the tokenizer or of transformers renders them otherwise: capture everything with one"
    elif worst.error > check.computing_tolerance:
        step = (
            "the company in a batch changes numbers: capture anew with --token-budget 1, so that each sample is alone"
        )
    else:
        step = "run 'nait-store verify'; if that is well, other releases or another device compute other numbers"
    return Finding.judged(
        "batches",
        "",
        f"{check.n_samples:,} samples captured again: {'; '.join(parts)}",
        warn=not check.agrees,
        next_step=step,
    )


def _span(span: SpanFacts, audit: SetAudit) -> Finding:
    parts = [
        f"{_percent(span.template_share)} of all tokens are template and special ones outside of the span"
        if audit.span_edges == "content"
        else "the span holds all tokens, those of the template too (--span-edges rendered)",
    ]
    if span.shared_prefix_tokens:
        parts.append(f"all samples begin with the same {span.shared_prefix_tokens:,} tokens")
    if span.first_norm_ratio is not None:
        parts.append(
            f"the first content token's vector is {span.first_norm_ratio:.2g} times as long as the mean of the others "
            f"in layer {span.first_norm_layer}, where it differs most"
        )
    return Finding.judged("tokens", "", "; ".join(parts), warn=False, next_step="")


def _scores(scores: ProfileScores) -> Finding:
    text = (
        f"{scores.n_samples:,} from {scores.lowest:.4g} to {scores.highest:.4g}, mean {scores.mean:.4g}, standard "
        f"deviation {scores.deviation:.4g}"
    )
    if scores.n_not_finite:
        return Finding.judged(
            "scores",
            scores.profile,
            f"{text}; {scores.n_not_finite:,} more are not finite",
            warn=True,
            next_step="run 'nait-store verify', then 'nait-store cache prune' for the scores to be computed again",
        )
    if not scores.edges:
        text = f"all {scores.n_samples:,} are {scores.highest:.4g}: they rank nothing"
    return Finding.judged(
        "scores", scores.profile, text, warn=not scores.edges, next_step="look at the profile's card: 'profile card'"
    )


def _length(scores: ProfileScores) -> Finding:
    effect = scores.length
    if effect.spearman is None:
        return Finding.skipped("length", scores.profile, "all samples have one length or one score, or are too few")
    content = "" if effect.spearman_content is None else f", with content tokens {effect.spearman_content:+.2f}"
    text = (
        f"ranks of score and tokens correlate {effect.spearman:+.2f} (Pearson {effect.pearson or 0.0:+.2f}{content}); "
        f"the best {BEST_PERCENT} % have {effect.mean_tokens_of_best:,.1f} tokens a sample, all "
        f"{effect.mean_tokens:,.1f}"
    )
    cosine = "rebuild the profile with --metric cosine; " if scores.metric is Metric.DOT else ""
    return Finding.judged(
        "length",
        scores.profile,
        text,
        warn=max(abs(effect.spearman), abs(effect.spearman_content or 0.0)) >= LARGE_LENGTH_CORRELATION,
        next_step=f"{cosine}train on --strategy length-matched as a control, or choose where n_content_tokens is alike",
    )


def _sources(audit: SetAudit, scores: ProfileScores) -> Finding:
    known = [(one.value or "(none)", one.auc) for one in scores.sources if one.auc is not None]
    if audit.n_sources < 2 or not known:
        text = f"all samples have one value of {audit.by}"
        return Finding.skipped("sources", scores.profile, text, "name another column: --by COLUMN")
    known.sort(key=lambda one: -abs((one[1] or 0.0) - 0.5))
    clear = [name for name, auc in known if auc is not None and not 1 - CLEAR_AUC < auc < CLEAR_AUC]
    shown = ", ".join(f"{name} {auc:.2f}" for name, auc in known[:_SHOWN_SOURCES])
    more = ", …" if audit.n_sources > _SHOWN_SOURCES else ""
    return Finding.judged(
        "sources",
        scores.profile,
        f"how often a sample of one {audit.by} scores above the others: {shown}{more}; 0.5 is chance",
        warn=bool(clear),
        next_step=f"to choose by this score is to choose by {audit.by} ({', '.join(clear)}): if that is not what you "
        "want, --quota, --per or --where",
    )


def _truncated_best(audit: SetAudit, scores: ProfileScores) -> Finding:
    share, overall = scores.n_truncated_of_best / scores.n_best, audit.n_truncated / audit.n_samples
    return Finding.judged(
        "truncated",
        scores.profile,
        f"{_percent(share)} of the best {BEST_PERCENT} % were truncated, {_percent(overall)} of all",
        warn=share >= LARGE_TRUNCATED_SHARE and share > overall,
        next_step='leave them out of the choice: --where "NOT truncated"',
    )


def _first_step(audit: SetAudit, span: SpanFacts) -> str:
    if audit.span_edges == "rendered":
        return "capture with --span-edges content: what stands first then is the sample's own"
    if span.n_first_at_start:
        return (
            "models give the first position a vector of its own kind: capture with a template or BOS before the text "
            "(--template alpaca), so that no content stands there"
        )
    return "samples with few tokens are scored by how they begin: leave them out, --where on n_content_tokens"


def _effect(topic: str, profile: str, effect: TokenEffect | None, absent: str, next_step: str) -> Finding:
    if effect is None:
        return Finding.judged(topic, profile, absent, warn=False, next_step="")
    parts = []
    if effect.variance_share is not None:
        parts.append(f"its part makes {_percent(effect.variance_share)} of the variance of the scores")
    if effect.rank_correlation is not None:
        parts.append(f"{effect.described} the ranks correlate {effect.rank_correlation:.3f} with what they are")
    if not parts:
        return Finding.skipped(topic, profile, f"{effect.n_samples:,} samples with such scores tell nothing")
    share, correlation = effect.variance_share or 0.0, effect.rank_correlation
    return Finding.judged(
        topic,
        profile,
        f"{'; '.join(parts)} ({effect.n_samples:,} samples)",
        warn=abs(share) >= LARGE_VARIANCE_SHARE or (correlation is not None and correlation < SMALL_RANK_CORRELATION),
        next_step=next_step,
    )


def _percent(share: float) -> str:
    """``12.3 %``; what is not quite nothing does not look so."""
    return "less than 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"
