"""From samples to tokens, and to the tokens among them that are the sample's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.capture.conversations import Sample
from nait_store.capture.templates import RenderedText, Template, template_named
from nait_store.capture.token_spans import Intervals, content_intervals
from nait_store.errors import InvalidInputError
from nait_store.schemas.capture import Span, SpanEdges, TemplatePolicy
from nait_store.schemas.samples import SampleRow

DEFAULT_MAX_LENGTH_TOKENS = 2048
_SAMPLES_PER_CALL = 1024
_CHARACTERS_PER_TOKEN = 32
"""A text longer than this many characters per token of the limit is cut before it is tokenised …"""
_MARGIN_TOKENS = 256
"""… if the cut text still gives this many tokens more than the limit, so that the cut cannot show."""


@dataclass(frozen=True, eq=False)
class PreparedSample:
    """A sample as the model will read it.

    Attributes
    ----------
    sample
        What it was made of.
    token_ids
        [T] int32, special tokens included, truncated.
    content
        Half-open token intervals of the content span: at least one, ascending, disjoint, none empty.
    n_content_tokens
        K, the tokens in ``content``.
    truncated
        Whether tokens were cut off on the right.
    """

    sample: Sample
    token_ids: NDArray[np.int32]
    content: tuple[tuple[int, int], ...]
    n_content_tokens: int
    truncated: bool

    @property
    def n_tokens(self) -> int:
        """T, the tokens that go through the model."""
        return len(self.token_ids)

    def row(self) -> SampleRow:
        """Return the sample's row of ``samples.parquet``."""
        sample = self.sample
        return SampleRow(
            sample_id=sample.sample_id,
            content_hash=sample.content_hash,
            source_uri=sample.source_uri,
            source_index=sample.source_index,
            n_tokens=self.n_tokens,
            n_content_tokens=self.n_content_tokens,
            truncated=self.truncated,
            record=sample.record_json,
            fields=sample.fields,
        )


@dataclass(frozen=True)
class UnpreparedSample:
    """A sample that gives nothing to measure."""

    sample: Sample
    reason: str

    @property
    def sample_id(self) -> str:
        """The sample's id."""
        return self.sample.sample_id

    @property
    def source_uri(self) -> str:
        """Where it was read."""
        return self.sample.source_uri

    @property
    def source_index(self) -> int:
        """Its position there."""
        return self.sample.source_index


def default_max_length_tokens(max_positions: int | None) -> int:
    """Return the truncation limit where the user names none: 2048, or the model's own limit if that is less."""
    return min(DEFAULT_MAX_LENGTH_TOKENS, max_positions) if max_positions else DEFAULT_MAX_LENGTH_TOKENS


class Renderer:
    """Renders and tokenises samples under one template policy and span rule.

    The content span holds every token that overlaps a character of the turns' own text. A token that straddles own
    text and scaffolding counts; special tokens never do. ``Span.RESPONSE`` takes the assistant's turns only.
    ``SpanEdges.RENDERED`` takes every token of the rendered sample.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer; a fast one unless the edges are ``rendered``.
    template
        ``auto``, ``chat``, ``alpaca`` or ``plain``; see :func:`~nait_store.capture.templates.template_named`.
    span, span_edges
        The span rule.
    max_length_tokens
        Longer samples are cut on the right.
    vocabulary_size
        Rows of the model's embedding, if known: a sample with a token beyond it is rejected.

    Raises
    ------
    InvalidInputError
        Unknown or unavailable template, a tokenizer without character offsets, ``response`` with ``rendered``, or a
        limit below 1.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str = "auto",
        span: Span = Span.ALL,
        span_edges: SpanEdges = SpanEdges.CONTENT,
        max_length_tokens: int = DEFAULT_MAX_LENGTH_TOKENS,
        vocabulary_size: int | None = None,
    ) -> None:
        if max_length_tokens < 1:
            raise InvalidInputError(
                f"a maximum length of {max_length_tokens} tokens leaves nothing",
                next_step="give --max-length 1 or more",
            )
        if span is Span.RESPONSE and span_edges is SpanEdges.RENDERED:
            raise InvalidInputError(
                "the span 'response' has no rendered edges: rendered means every token of the sample",
                next_step="use --span all with --span-edges rendered, or --span response with --span-edges content",
            )
        if span_edges is SpanEdges.CONTENT and not getattr(tokenizer, "is_fast", False):
            raise InvalidInputError(
                "this model's tokenizer gives no character offsets, so a sample's own tokens cannot be told",
                next_step="add a tokenizer.json (a fast tokenizer) to the model, or use --span-edges rendered",
            )
        self._tokenizer = tokenizer
        self._template: Template = template_named(template, tokenizer)
        self._span = span
        self._span_edges = span_edges
        self.max_length_tokens = max_length_tokens
        self._vocabulary_size = vocabulary_size
        self._special_ids = frozenset(tokenizer.all_special_ids)

    @property
    def policy(self) -> TemplatePolicy:
        """The template policy, for the capture identity."""
        return self._template.policy

    @property
    def span_edges(self) -> SpanEdges:
        """Where the content span ends."""
        return self._span_edges

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokenizer's special tokens."""
        return self._special_ids

    def under(self, *, template: str | None = None, span_edges: SpanEdges | None = None) -> Renderer:
        """Return a renderer with the same tokenizer and limits but another template, or other edges of the span."""
        return Renderer(
            self._tokenizer,
            template=self.policy.name if template is None else template,
            span=self._span,
            span_edges=self._span_edges if span_edges is None else span_edges,
            max_length_tokens=self.max_length_tokens,
            vocabulary_size=self._vocabulary_size,
        )

    def prepare(self, samples: Sequence[Sample]) -> list[PreparedSample | UnpreparedSample]:
        """Render and tokenise samples.

        Parameters
        ----------
        samples
            Any number; they are tokenised in batches.

        Returns
        -------
        list
            One entry a sample, in order. A sample is unprepared, with the reason, if the template refuses it, if
            its span is empty (before or after truncation), or if it holds tokens that the model does not know.
        """
        results: list[PreparedSample | UnpreparedSample] = []
        for start in range(0, len(samples), _SAMPLES_PER_CALL):
            results += self._prepare(samples[start : start + _SAMPLES_PER_CALL])
        return results

    def _prepare(self, samples: Sequence[Sample]) -> list[PreparedSample | UnpreparedSample]:
        results: list[PreparedSample | UnpreparedSample | None] = [None] * len(samples)
        waiting: dict[bool, list[tuple[int, RenderedText]]] = {True: [], False: []}
        for index, sample in enumerate(samples):
            rendered = self._template.render(sample.turns)
            if isinstance(rendered, str):
                results[index] = UnpreparedSample(sample, rendered)
            elif self._span is Span.RESPONSE and not any(turn.role == "assistant" for turn in sample.turns):
                results[index] = UnpreparedSample(sample, "there is no assistant turn for the span 'response'")
            else:
                waiting[rendered.adds_special_tokens].append((index, rendered))
        for adds_special_tokens, group in waiting.items():
            tokens = self._tokenise([rendered.text for _, rendered in group], adds_special_tokens)
            spans = self._content([rendered for _, rendered in group], tokens)
            for (index, _), token_ids, content in zip(group, tokens.ids, spans, strict=True):
                results[index] = self._finish(samples[index], token_ids, content)
        return [result for result in results if result is not None]

    def _tokenise(self, texts: Sequence[str], adds_special_tokens: bool) -> _Tokens:
        """Tokenise texts; very long ones only as far as the limit can reach."""
        reach = self.max_length_tokens * _CHARACTERS_PER_TOKEN + 1024
        tokens = self._encode([text[:reach] for text in texts], adds_special_tokens)
        enough = self.max_length_tokens + _MARGIN_TOKENS
        unsure = [i for i, text in enumerate(texts) if len(text) > reach and len(tokens.ids[i]) < enough]
        whole = self._encode([texts[index] for index in unsure], adds_special_tokens)
        for position, index in enumerate(unsure):
            tokens.ids[index] = whole.ids[position]
            if tokens.offsets is not None and whole.offsets is not None:
                tokens.offsets[index] = whole.offsets[position]
        return tokens

    def _encode(self, texts: list[str], adds_special_tokens: bool) -> _Tokens:
        with_offsets = self._span_edges is SpanEdges.CONTENT
        if not texts:
            return _Tokens([], [] if with_offsets else None)
        encoded = self._tokenizer(
            texts,
            add_special_tokens=adds_special_tokens,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=with_offsets,
            verbose=False,
        )
        return _Tokens(list(encoded["input_ids"]), list(encoded["offset_mapping"]) if with_offsets else None)

    def _content(self, rendered: Sequence[RenderedText], tokens: _Tokens) -> list[Intervals]:
        if tokens.offsets is None:
            return [((0, min(len(ids), self.max_length_tokens)),) if ids else () for ids in tokens.ids]
        roles = ("assistant",) if self._span is Span.RESPONSE else None
        return content_intervals(
            tokens.ids,
            tokens.offsets,
            [[(p.start, p.end) for p in item.pieces if roles is None or p.role in roles] for item in rendered],
            special_ids=self._special_ids,
            max_length_tokens=self.max_length_tokens,
        )

    def _finish(self, sample: Sample, ids: Sequence[int], content: Intervals) -> PreparedSample | UnpreparedSample:
        truncated = len(ids) > self.max_length_tokens
        token_ids = np.array(ids[: self.max_length_tokens], dtype=np.int32)
        if not len(token_ids):
            return UnpreparedSample(sample, "it has no tokens")
        if not content:
            return UnpreparedSample(sample, self._why_empty(truncated))
        if self._vocabulary_size is not None and (unknown := int(token_ids.max())) >= self._vocabulary_size:
            return UnpreparedSample(sample, f"token {unknown} is beyond the model's {self._vocabulary_size} embeddings")
        n_content_tokens = sum(end - start for start, end in content)
        return PreparedSample(sample, token_ids, content, n_content_tokens, truncated)

    def _why_empty(self, truncated: bool) -> str:
        what = "the assistant's turns" if self._span is Span.RESPONSE else "the turns' own text"
        after = f" within the first {self.max_length_tokens} tokens (--max-length)" if truncated else ""
        return f"no token of {what}{after}"


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Token ids of each text and, if they were asked for, the tokens' character ranges."""

    ids: list[Sequence[int]]
    offsets: list[Sequence[tuple[int, int]]] | None
