"""What an ingest is asked to do, what it expects, and what it has done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from nait_store.schemas.activation_set import IngestChoices
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.record import SourceFile

if TYPE_CHECKING:
    from nait_store.activations.writer import SegmentWriter
    from nait_store.capture.conversations import FieldMap, Sample
    from nait_store.capture.usage import CaptureUsage

OnError = Literal["stop", "skip"]
KeepFeatures = Literal["all", "none"]


@dataclass(frozen=True)
class FlushPolicy:
    """When a segment is closed, so that its samples are acknowledged and survive whatever comes.

    A limit of time or size that is reached in the middle of a chunk waits, within a factor of two, until little of
    the last chunk would be padding.

    Attributes
    ----------
    seconds
        Age of the segment: what a kill can cost.
    size_bytes
        Activations and text.
    rows
        Samples; a hard limit.
    text_bytes
        Text of the samples, which is held in memory until then; a hard limit.
    score_bytes
        Scores of the samples under the profiles that the ingest scores, held in memory until then; a hard limit.
    """

    seconds: float = 120.0
    size_bytes: int = 1 << 30
    rows: int = 65_536
    text_bytes: int = 64 << 20
    score_bytes: int = 256 << 20

    def is_due(self, writer: SegmentWriter, age_seconds: float, score_bytes: int = 0) -> bool:
        """Whether to close the segment now, with so many bytes of scores."""
        if writer.n_rows >= self.rows or writer.text_bytes >= self.text_bytes or score_bytes >= self.score_bytes:
            return True
        if age_seconds < self.seconds and writer.size_bytes < self.size_bytes:
            return False
        if age_seconds >= 2 * self.seconds or writer.size_bytes >= 2 * self.size_bytes:
            return True
        if writer.n_rows < writer.chunk_rows:
            return writer.n_rows > 0  # a chunk of its own size, no padding
        padding = -writer.n_buffered_rows % writer.chunk_rows
        return 8 * padding <= writer.n_rows


@dataclass(frozen=True)
class GivenSamples:
    """Samples that were read and understood elsewhere: those of another set, say.

    Attributes
    ----------
    n_samples
        How many.
    read
        Yields them; they keep the ids, and the sources, that they have.
    """

    n_samples: int
    read: Callable[[], Iterator[Sample]]


@dataclass(frozen=True)
class IngestRequest:
    """What to ingest.

    Attributes
    ----------
    sources
        Paths, URLs, globs or data sets, see :func:`nait_store.capture.readers.open_sources`.
    set_name
        The activation set; created where it does not exist.
    features
        Features to store.
    dtype
        Stored element type. None: the set's, or for a new set float16 unless the first 256 samples come within
        1/16 of its range.
    field_map
        Which of the records' fields to use for what; detected if omitted.
    id_field
        Field that holds the sample id; else ids are made of the content.
    on_error
        ``"stop"`` at a record that cannot be used, or ``"skip"`` it and report.
    only
        Ids of the samples to take, where others are not wanted: a repair captures what was lost, and nothing else.
    limit
        Take the first so many usable, distinct samples of the input.
    message
        Free text for the version's history.
    rejects_path
        Path or URL of the JSON Lines file of everything that was left out; beside the ingest's records if omitted.
    command
        The command line, for the plan.
    flush
        When samples are flushed.
    score_with
        Profiles that the samples are scored against while they are written, ``math@2``; none for an empty tuple.
        None: every profile that applies to them, see :func:`~nait_store.ingest.scored_profiles.applicable_profiles`.
    keep_features
        ``"all"`` keeps the activations, ``"none"`` only their projections on these profiles. None: as the set does;
        a new one keeps them.
    given
        Samples to take instead of reading the sources; ``opened`` then only says where they are from.
    opened
        What ``open_sources(sources)`` gave, by those who looked before a model was loaded: digests are taken once.
    """

    sources: tuple[str, ...]
    set_name: str
    features: tuple[Feature, ...] = (Feature.MEAN,)
    dtype: StoredDtype | None = None
    field_map: FieldMap | None = None
    id_field: str | None = None
    on_error: OnError = "stop"
    only: frozenset[str] | None = None
    limit: int | None = None
    message: str = ""
    rejects_path: str | None = None
    command: str = ""
    flush: FlushPolicy = field(default_factory=FlushPolicy)
    given: GivenSamples | None = None
    opened: tuple[SourceFile, ...] = ()
    score_with: tuple[str, ...] | None = None
    keep_features: KeepFeatures | None = None

    @property
    def choices(self) -> IngestChoices:
        """What decides which records become samples, for the plan."""
        return IngestChoices(
            field_map=dict(self.field_map.columns) if self.field_map is not None else {},
            id_field=self.id_field,
            on_error=self.on_error,
            limit=self.limit,
            n_only=self.given.n_samples if self.given is not None else None if self.only is None else len(self.only),
        )


@dataclass(frozen=True)
class IngestEstimate:
    """What an ingest expects before it starts.

    Attributes
    ----------
    n_records
        Records of the input where that is cheap to tell, ``limit`` considered; known samples included.
    sample_bytes
        Bytes of activations per sample.
    expected_bytes
        Bytes to be written if every record is a new sample; None where ``n_records`` is.
    free_bytes
        Free space of the store, where the filesystem says.
    """

    n_records: int | None
    sample_bytes: int
    expected_bytes: int | None
    free_bytes: int | None


EstimateListener = Callable[[IngestEstimate], None]


def ignore_estimate(estimate: IngestEstimate) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class Rejection:
    """A record that was left out.

    Attributes
    ----------
    where
        ``file:line``, or its position in the source.
    reason
        Why, a phrase.
    sample_id
        Where it got as far as having one.
    """

    where: str
    reason: str
    sample_id: str | None = None


@dataclass(frozen=True)
class IngestReport:
    """What an ingest has done.

    Attributes
    ----------
    set_ref
        The set's latest version, ``pool@3``, with everything in it.
    n_added
        Samples captured and added.
    n_known
        Samples of the input that the set held already.
    n_duplicates
        Exact repetitions within the input.
    n_rejected
        Records left out.
    rejected
        The first 20 of them.
    rejects_path
        File that lists all of them; None where there are none.
    n_tokens
        Tokens that went through the model.
    n_truncated
        Added samples that were cut to the length limit.
    bytes_written
        Size of the segments written.
    elapsed_seconds
        Wall-clock time.
    resumed_samples
        Samples that earlier, interrupted ingests had captured and that this one committed.
    usage
        How the model was run: device, layout of batches, token budget, peak memory.
    warnings
        What the user should know.
    scored_with
        Profiles whose scores of the added samples are kept.
    keeps_features
        Whether their activations are, too.
    """

    set_ref: str
    n_added: int
    n_known: int
    n_duplicates: int
    n_rejected: int
    rejected: tuple[Rejection, ...]
    rejects_path: str | None
    n_tokens: int
    n_truncated: int
    bytes_written: int
    elapsed_seconds: float
    resumed_samples: int
    usage: CaptureUsage
    warnings: tuple[str, ...]
    scored_with: tuple[str, ...] = ()
    keeps_features: bool = True
