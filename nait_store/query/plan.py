"""What a statement would read: scores that are there, passes over arrays for those that are not, single arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nait_store.query.features.table import ArrayRead, array_bytes
from nait_store.query.sources import Source
from nait_store.query.stored_scores import StoredScores
from nait_store.schemas.capture import Feature
from nait_store.scoring.stored_targets import stored_feature


@dataclass(frozen=True)
class ScoresNeeded:
    """The scores of a set version under a profile.

    Attributes
    ----------
    activation_set, profile
        Resolved references.
    feature, metric
        As the statement asks for, or the profile's own.
    n_samples
        Visible samples.
    n_segments, n_cached_segments
        Segments of the version, and those whose scores are kept.
    """

    activation_set: str
    profile: str
    feature: str
    metric: str
    n_samples: int
    n_segments: int
    n_cached_segments: int


@dataclass(frozen=True)
class ArrayPass:
    """One pass over the arrays of a feature, for all profiles whose scores are missing.

    Attributes
    ----------
    activation_set, feature
        What is scanned.
    profiles
        Resolved references.
    n_segments, n_rows, n_layers
        What is read of it.
    size_bytes
        Bytes of the chunks.
    """

    activation_set: str
    feature: str
    profiles: tuple[str, ...]
    n_segments: int
    n_rows: int
    n_layers: int
    size_bytes: int


@dataclass(frozen=True)
class StatementPlan:
    """What running a statement would read, besides the sample rows and metadata that DuckDB looks at.

    Attributes
    ----------
    scores
        Every set version with every profile that the statement names.
    passes
        Over arrays, to compute what is missing.
    reads
        Arrays of functions such as ``neuron``; at most, since a filter on rows leaves chunks out.
    """

    scores: tuple[ScoresNeeded, ...]
    passes: tuple[ArrayPass, ...]
    reads: tuple[ArrayRead, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of arrays, at most."""
        return sum(part.size_bytes for part in self.passes) + sum(part.size_bytes for part in self.reads)


def plan_statement(sources: Sequence[Source], scores: StoredScores) -> StatementPlan:
    """Say what a statement would read.

    Parameters
    ----------
    sources
        What stands for its calls.
    scores
        Knows which scores are kept.
    """
    pairs = {pair.key: pair for source in sources for pair in source.pairs}
    needed = []
    wanted: dict[tuple[str, str], dict[str, set[int]]] = {}  # (set, feature) → segment → layers
    profiles: dict[tuple[str, str], dict[str, None]] = {}
    segments = {}
    counted = set()
    for pair in pairs.values():
        version, target = pair.version, pair.target
        missing = scores.missing(version, target)
        needed.append(
            ScoresNeeded(
                version.reference,
                pair.profile,
                target.feature.value,
                target.metric.value,
                version.n_samples,
                len(version.refs),
                len(version.refs) - len(missing),
            )
        )
        for segment in missing:
            sidecar = scores.key(segment, target)
            if sidecar in counted:  # versions of a set share segments
                continue
            counted.add(sidecar)
            segments[segment.segment_id] = segment
            key = (version.reference, stored_feature(segment.record, target).value)
            wanted.setdefault(key, {}).setdefault(segment.segment_id, set()).update(target.layers)
            profiles.setdefault(key, {})[pair.profile] = None
    passes = []
    for (reference, feature), by_segment in wanted.items():
        size_bytes = n_rows = 0
        for segment_id, layers in by_segment.items():
            segment = segments[segment_id]
            size_bytes += array_bytes(segment, Feature(feature), segment.n_rows) * len(layers)
            n_rows += segment.n_rows
        n_layers = max(len(layers) for layers in by_segment.values())
        names = tuple(profiles[reference, feature])
        passes.append(ArrayPass(reference, feature, names, len(by_segment), n_rows, n_layers, size_bytes))
    return StatementPlan(tuple(needed), tuple(passes), tuple(read for source in sources for read in source.reads))
