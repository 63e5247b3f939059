"""What a set holds already, as an ingest needs to know it: which samples, stored how, captured from where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nait_store.activations.reader import SegmentReader
from nait_store.activations.sample_keys import KnownSample, KnownSamples
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.capture.source_records import place
from nait_store.ingest.adoption import AbandonedIngest, usable_keys
from nait_store.schemas.capture import Feature


@dataclass(frozen=True)
class Coverage:
    """The samples that a version and the adopted segments hold.

    Attributes
    ----------
    known
        Their keys.
    covers
        Of each segment: whether it stores all the features and layers that are asked for.
    openers
        Open each segment.
    """

    known: KnownSamples
    covers: tuple[bool, ...]
    openers: tuple[Callable[[], SegmentReader], ...]

    def describe(self, sample: KnownSample) -> str:
        """Where a known sample was captured from."""
        reader = self.openers[sample.source]()
        row = reader.samples(["source_uri", "source_index"]).slice(sample.row, 1).to_pylist()[0]
        return place(row["source_uri"], row["source_index"], None)


def coverage_of(
    sets: ActivationSets,
    set_name: str,
    version: SetVersion | None,
    adopted: Sequence[AbandonedIngest],
    *,
    features: Sequence[Feature],
    layers: Sequence[int],
) -> Coverage:
    """Read which samples there are; segments of the version are opened only where its manifest does not tell enough.

    Parameters
    ----------
    sets, set_name, version
        The set and its latest version, if it has one.
    adopted
        Dead ingests whose segments will be committed.
    features, layers
        What is asked for.
    """

    def stores_all(holder: SetVersion | SegmentReader) -> bool:
        return set(features) <= set(holder.features) and set(layers) <= set(holder.layers)

    keys = []
    covers: list[bool] = []
    openers: list[Callable[[], SegmentReader]] = []
    if version is not None:
        keys += sets.visible_keys(version)
        for ref in version.refs:
            openers.append(lambda version=version, ref=ref: version.segment(ref))  # type: ignore[misc]
        whole = stores_all(version)
        covers += [whole or stores_all(opener()) for opener in openers]
    for record in (record for ingest in adopted for record in ingest.segments):
        reader = SegmentReader(sets.location, record)
        keys.append(usable_keys(sets, set_name, reader))
        covers.append(stores_all(reader))
        openers.append(lambda reader=reader: reader)  # type: ignore[misc]
    return Coverage(KnownSamples(keys), tuple(covers), tuple(openers))


def narrower_than(version: SetVersion | None, features: Sequence[Feature], layers: Sequence[int]) -> list[str]:
    """Warn of what a set stores for the samples it has, and will not for those added now."""
    if version is None:
        return []
    warnings = []
    lost = [f.value for f in version.features if f not in features]
    if lost:
        warnings.append(
            f"set {version.name!r} stores {', '.join(lost)} for the samples it has, and will not for those added "
            "now: what needs it can use the samples of earlier versions only"
        )
    if set(version.layers) - set(layers):
        warnings.append(f"set {version.name!r} stores more layers for the samples it has than for those added now")
    return warnings
