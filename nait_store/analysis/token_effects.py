"""Which part of a score comes from tokens that say nothing of a sample: the first one, BOS, and the template's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nait_store.analysis.recapture import Features, Recaptured, capture_in_groups
from nait_store.capture.rendering import PreparedSample, Renderer
from nait_store.registry.cards.rank_statistics import rank_correlation
from nait_store.schemas.capture import Feature, SpanEdges
from nait_store.schemas.profile import Metric
from nait_store.scoring.targets import ScoringTarget

if TYPE_CHECKING:
    from nait_store.capture.session import CaptureSession


@dataclass(frozen=True)
class Variant:
    """Samples captured in another way, beside the same ones as the set has them.

    Attributes
    ----------
    kept
        [m] places of the samples that it is about, among those captured again.
    features
        Of these, all three, [m, L, J].
    n_content
        [m] Content tokens of each.
    described
        What is different, in words.
    """

    kept: NDArray[np.int64]
    features: Features
    n_content: NDArray[np.float64]
    described: str


@dataclass(frozen=True)
class TokenEffect:
    """What some tokens do to the scores under one profile.

    Attributes
    ----------
    n_samples
        Samples that it was measured on.
    described
        Without what, or how else, they were scored: ``without the first content token``.
    variance_share
        Covariance of the tokens' own term of the score with the score, over the variance of the score: which part of
        the differences between samples the tokens make. None where their term is not known by itself.
    rank_correlation
        Spearman's, of the scores with them and without; None where one of both is constant.
    """

    n_samples: int
    described: str
    variance_share: float | None
    rank_correlation: float | None


@dataclass(frozen=True)
class TokenEffects:
    """All effects on the scores under one profile; None where there are no such tokens.

    Attributes
    ----------
    first
        Of the first token of the content span.
    bos
        Of the special token that samples begin with.
    template
        Of the template: of its tokens in the span where that holds them, else of their being there.
    """

    first: TokenEffect | None
    bos: TokenEffect | None
    template: TokenEffect | None


@dataclass(frozen=True)
class SpanFacts:
    """What the tokens of the samples are, whatever the profile.

    Attributes
    ----------
    n_samples
        Samples captured again.
    n_with_bos, n_bos_in_span
        Those that begin with a special token, and those whose span holds it.
    n_first_at_start
        Those whose first content token is at position 0.
    shared_prefix_tokens
        Tokens that all of them begin with.
    template_share
        Which part of all tokens is not in a span, 0 to 1.
    first_norm_ratio
        Length of the first content token's vector over that of the mean of the others: the median sample in the layer
        where that is largest; None where no sample has another one.
    first_norm_layer
        That layer.
    """

    n_samples: int
    n_with_bos: int
    n_bos_in_span: int
    n_first_at_start: int
    shared_prefix_tokens: int
    template_share: float
    first_norm_ratio: float | None
    first_norm_layer: int | None


class TokenProbe:
    """Captures variants of samples once, and says of each profile what they do to its scores.

    Parameters
    ----------
    session
        Of the samples' capture.
    recaptured
        The samples as the set has them.
    """

    def __init__(self, session: CaptureSession, recaptured: Recaptured) -> None:
        self._session = session
        self._base = recaptured
        self._edges = session.renderer.span_edges
        self._special = session.renderer.special_ids
        self._without_bos = self._variant_without_bos()
        self._plain = None if self._edges is SpanEdges.RENDERED else self._variant_plain()
        self._own = self._variant_own() if self._edges is SpanEdges.RENDERED else None

    @property
    def _first_vectors(self) -> NDArray[np.float64]:
        """A(t_1) [n, L, J]: what was last less what changed since the first."""
        alone = self._base.alone
        return alone[Feature.LAST].astype(np.float64) - alone[Feature.DRIFT]

    @property
    def _n_content(self) -> NDArray[np.float64]:
        return np.array([one.n_content_tokens for one in self._base.prepared], dtype=np.float64)

    def facts(self) -> SpanFacts:
        """Say what the tokens are."""
        prepared = self._base.prepared
        begins = [one for one in prepared if int(one.token_ids[0]) in self._special]
        several = self._n_content > 1
        ratio, layer = None, None
        if several.any():
            first = np.linalg.norm(self._first_vectors[several], axis=2)
            others = np.linalg.norm(self._mean_of_others()[several], axis=2)
            ratios = np.median(first / np.where(others > 0, others, np.inf), axis=0)  # [L]
            place = int(ratios.argmax())
            ratio, layer = float(ratios[place]), self._base.layers[place]
        n_tokens = sum(one.n_tokens for one in prepared)
        return SpanFacts(
            n_samples=len(prepared),
            n_with_bos=len(begins),
            n_bos_in_span=sum(one.content[0][0] == 0 for one in begins),
            n_first_at_start=sum(one.content[0][0] == 0 for one in prepared),
            shared_prefix_tokens=_shared_prefix([one.token_ids for one in prepared]),
            template_share=1 - sum(one.n_content_tokens for one in prepared) / n_tokens,
            first_norm_ratio=ratio,
            first_norm_layer=layer,
        )

    def effects(self, target: ScoringTarget) -> TokenEffects:
        """Say what the tokens do to the scores under a target whose layers were captured."""
        places = [self._base.layers.index(layer) for layer in target.layers]
        feature = target.feature

        def score(values: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
            return scores_of(values[:, places].astype(np.float64), target)

        base = self._base.alone[feature][:, places].astype(np.float64)
        return TokenEffects(
            first=self._first_effect(base, places, target),
            bos=self._compared(self._without_bos, feature, score),
            template=self._template_effect(base, places, target, score),
        )

    def _first_effect(
        self, base: NDArray[np.float64], places: Sequence[int], target: ScoringTarget
    ) -> TokenEffect | None:
        """Of t_1: its own term, and, of means, the scores without it."""
        first, n_content = self._first_vectors[:, places], self._n_content[:, None, None]
        scores = scores_of(base, target)
        correlation = None
        if target.feature is Feature.MEAN:
            part = first / n_content
            several = self._n_content > 1
            rest = self._mean_of_others()[:, places][several]
            correlation = rank_correlation(scores[several], scores_of(rest, target))
        elif target.feature is Feature.DRIFT:
            part = -first
        else:
            part = np.where(n_content == 1, first, 0.0)
        share = variance_share(part_of_scores(part, base, target), scores)
        return TokenEffect(len(scores), "without the first content token", share, correlation)

    def _template_effect(
        self,
        base: NDArray[np.float64],
        places: Sequence[int],
        target: ScoringTarget,
        score: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    ) -> TokenEffect | None:
        if self._own is None:
            return self._compared(self._plain, target.feature, score)
        effect = self._compared(self._own, target.feature, score)
        if effect is None or target.feature is not Feature.MEAN:
            return effect
        kept = self._own.kept
        own = self._own.features[Feature.MEAN][:, places].astype(np.float64)
        part = base[kept] - own * (self._own.n_content / self._n_content[kept])[:, None, None]
        scores = scores_of(base, target)[kept]
        return replace(effect, variance_share=variance_share(part_of_scores(part, base[kept], target), scores))

    def _compared(
        self,
        variant: Variant | None,
        feature: Feature,
        score: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    ) -> TokenEffect | None:
        if variant is None:
            return None
        before, after = score(self._base.alone[feature][variant.kept]), score(variant.features[feature])
        return TokenEffect(len(before), variant.described, None, rank_correlation(before, after))

    def _mean_of_others(self) -> NDArray[np.float64]:
        """Mean vector [n, L, J] of all content tokens but the first; of a single one, of none: 0."""
        n_content = self._n_content[:, None, None]
        total = self._base.alone[Feature.MEAN].astype(np.float64) * n_content - self._first_vectors
        return total / np.maximum(n_content - 1, 1)

    def _variant_without_bos(self) -> Variant | None:
        """The samples that begin with a special token outside of their span, without it."""
        kept, shortened = list[int](), list[PreparedSample]()
        for place, one in enumerate(self._base.prepared):
            if int(one.token_ids[0]) in self._special and one.content[0][0] > 0:
                kept.append(place)
                content = tuple((start - 1, stop - 1) for start, stop in one.content)
                shortened.append(replace(one, token_ids=one.token_ids[1:], content=content))
        return self._captured(kept, shortened, "without the special token at the beginning")

    def _variant_plain(self) -> Variant | None:
        """The samples without their template."""
        renderer = self._session.renderer
        if renderer.policy.name == "plain":
            return None
        return self._rendered_again(renderer.under(template="plain"), "captured without the template")

    def _variant_own(self) -> Variant | None:
        """The samples with a span of their own text only."""
        renderer = self._session.renderer.under(span_edges=SpanEdges.CONTENT)
        return self._rendered_again(renderer, "over the samples' own tokens only")

    def _rendered_again(self, renderer: Renderer, described: str) -> Variant | None:
        kept, prepared = list[int](), list[PreparedSample]()
        for place, one in enumerate(renderer.prepare(self._base.samples)):
            # What was cut off differs between templates: such a sample would not be the same text.
            if isinstance(one, PreparedSample) and not (one.truncated or self._base.prepared[place].truncated):
                kept.append(place)
                prepared.append(one)
        return self._captured(kept, prepared, described)

    def _captured(self, kept: Sequence[int], prepared: Sequence[PreparedSample], described: str) -> Variant | None:
        if not prepared:
            return None
        features = capture_in_groups(self._session, prepared, [[i] for i in range(len(prepared))])
        n_content = np.array([one.n_content_tokens for one in prepared], dtype=np.float64)
        return Variant(np.array(kept, dtype=np.int64), features, n_content, described)


def scores_of(A: NDArray[np.float64], target: ScoringTarget) -> NDArray[np.float64]:
    """Scores [n] of activations [n, L, J] of the target's layers."""
    centred = A if target.offset is None else A - target.offset.astype(np.float64)
    return part_of_scores(centred, A, target)


def part_of_scores(part: NDArray[np.float64], A: NDArray[np.float64], target: ScoringTarget) -> NDArray[np.float64]:
    """What an additive part [n, L, J] of activations A [n, L, J] gives to their scores, [n].

    The parts of a vector give its score together: under cosine each is divided by the length of the whole.
    """
    terms = np.einsum("nlj,lj->nl", part, target.directions.astype(np.float64))
    if target.metric is Metric.COSINE:
        centred = A if target.offset is None else A - target.offset.astype(np.float64)
        norms = np.linalg.norm(centred, axis=2)
        terms = np.divide(terms, norms, out=np.zeros_like(terms), where=norms > 0)
    summed: NDArray[np.float64] = terms.sum(axis=1)
    return summed


def variance_share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> float | None:
    """Covariance [n] of a part with the whole over the variance of the whole; None where that is constant."""
    centred = whole - whole.mean()
    variance = float(centred @ centred)
    return None if variance <= 0 else float((part - part.mean()) @ centred) / variance


def _shared_prefix(tokens: Sequence[NDArray[np.int32]]) -> int:
    """How many tokens all of several samples begin with; of one sample nothing is shared."""
    if len(tokens) < 2:
        return 0
    length = min(map(len, tokens))
    stacked = np.stack([one[:length] for one in tokens])
    differs = (stacked != stacked[0]).any(axis=0)
    return int(differs.argmax()) if differs.any() else length
