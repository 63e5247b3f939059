"""What became of a set: its versions, what two of them differ in, the labels on them, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from nait_store.schemas.activation_set import Operation
from nait_store.storage.labels import LabelKind
from nait_store.store.kept_versions import Deletion, deletion_of, labels_on

if TYPE_CHECKING:
    from nait_store.activations.difference import SampleChange, SampleDifference
    from nait_store.activations.versions import ActivationSets, SetVersion
    from nait_store.schemas.activation_set import SetManifest

_FIRST = 5


@dataclass(frozen=True)
class VersionSummary:
    """One version in the history of a set.

    Attributes
    ----------
    reference, number
        ``pool@3`` and 3.
    n_samples
        Visible samples; None where gc took the version's document.
    change
        Samples more than in the parent; None where one of the two is unknown.
    operation
        What made it: ``ingest``, ``delete-samples``, ``restore`` …; ``collected`` where only the number is left.
    what
        The operation's details in words.
    details
        The same, as recorded.
    parent
        Number of the version that it was made from.
    message, author, created_at
        As given by, and of, its writer.
    tags, aliases
        Labels on it.
    note
        What is said about it now; empty for nothing.
    deleted
        Set where it was deleted; until gc takes it, it can be brought back.
    collected
        Whether gc has taken it.
    """

    reference: str
    number: int
    n_samples: int | None = None
    change: int | None = None
    operation: str = "collected"
    what: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    parent: int | None = None
    message: str = ""
    author: str = ""
    created_at: datetime | None = None
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    note: str = ""
    deleted: Deletion | None = None
    collected: bool = False


@dataclass(frozen=True)
class SetDiff:
    """In what two versions differ.

    Attributes
    ----------
    first, second
        The versions, resolved.
    n_added, n_removed, n_changed, n_kept
        Samples that only the second has; only the first; both, with different contents; both alike.
    added, removed, changed
        Ids of the first few of each.
    features_added, features_removed, layers_added, layers_removed
        What the second stores for all of its samples and the first does not, and the reverse.
    n_segments_added, n_segments_removed
        Segments that only the second, or only the first, consists of.
    same_capture
        Whether both measure the same thing; scores of two captures cannot be compared.
    samples
        Where the differing samples are.
    """

    first: str
    second: str
    n_added: int
    n_removed: int
    n_changed: int
    n_kept: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    features_added: tuple[str, ...]
    features_removed: tuple[str, ...]
    layers_added: tuple[int, ...]
    layers_removed: tuple[int, ...]
    n_segments_added: int
    n_segments_removed: int
    same_capture: bool
    samples: SampleDifference = field(repr=False, compare=False)

    @property
    def same_samples(self) -> bool:
        """Whether both have the same samples with the same contents."""
        return not (self.n_added or self.n_removed or self.n_changed)

    def ids(self) -> Iterator[tuple[SampleChange, str]]:
        """What became of each differing sample, and its id; read segment by segment."""
        from nait_store.activations.difference import SampleChange

        for change in SampleChange:
            for sample_id in self.samples.of(change).ids():
                yield change, sample_id


@dataclass(frozen=True)
class DeletedSamples:
    """What a deletion of samples did, or would do.

    Attributes
    ----------
    from_ref
        The version that they were found in.
    set_ref
        The version without them; the latest, where nothing was deleted.
    n_deleted, n_left
        Samples deleted, and left in the set.
    sample_ids
        The first few of those that were found.
    n_missing, missing
        Ids that the set does not have, and the first few of them.
    dry_run
        Whether nothing was done.
    """

    from_ref: str
    set_ref: str
    n_deleted: int
    n_left: int
    sample_ids: tuple[str, ...]
    n_missing: int = 0
    missing: tuple[str, ...] = ()
    dry_run: bool = False


@dataclass(frozen=True)
class RestoredVersion:
    """A version that equals an old one.

    Attributes
    ----------
    set_ref, n_samples
        The version, and its visible samples.
    restored
        The old version.
    created
        False where the set was in that very state already, and no version was made.
    """

    set_ref: str
    restored: str
    n_samples: int
    created: bool


def history_of(sets: ActivationSets, name: str, notes: Mapping[int, str]) -> list[VersionSummary]:
    """Every number that a set ever used, oldest first, with the notes on them."""
    log = sets.log
    listing = log.listing(name)
    labels = log.labels.of(name)
    samples = {}
    manifests = {number: log.read(name, number) for number in listing.documents}
    # Only replacements of segments make a version smaller than its document says.
    replaced = bool(sets.redirects(name).records)
    found = []
    for number in sorted({*listing.documents, *listing.deleted, *listing.collected}):
        manifest = manifests.get(number)
        collected = number in listing.collected
        if manifest is None:
            found.append(VersionSummary(f"{name}@{number}", number, note=notes.get(number, ""), collected=collected))
            continue
        counted = replaced and not collected
        samples[number] = sets.version(name, number).n_samples if counted else manifest.n_samples
        parent = manifest.parent
        before = 0 if parent is None else samples.get(parent)
        found.append(
            VersionSummary(
                reference=f"{name}@{number}",
                number=number,
                n_samples=samples[number],
                change=None if before is None else samples[number] - before,
                operation=manifest.operation.value,
                what=in_words(manifest),
                details=manifest.details,
                parent=parent,
                message=manifest.message,
                author=manifest.provenance.author,
                created_at=manifest.provenance.created_at,
                tags=labels_on(number, labels, LabelKind.TAG),
                aliases=labels_on(number, labels, LabelKind.ALIAS),
                note=notes.get(number, ""),
                deleted=deletion_of(log, name, number) if number in listing.deleted else None,
                collected=collected,
            )
        )
    return found


def in_words(manifest: SetManifest) -> str:
    """What the operation of a version was asked to do: ``12 samples where source = 'x'``, ``restored pool@3``."""
    details = manifest.details
    numbers = {key: value for key, value in details.items() if isinstance(value, int)}
    match manifest.operation:
        case Operation.RESTORE if "restored" in numbers:
            return f"restored {manifest.set_name}@{numbers['restored']}"
        case Operation.DELETE_SAMPLES if "n_deleted" in numbers:
            which = f" where {details['where']}" if "where" in details else ", listed by id"
            return _count(numbers["n_deleted"], "sample") + which
        case Operation.COMPACT if {"segments", "into"} <= numbers.keys():
            dropped = numbers.get("dropped_rows", 0)
            without = f" without {_count(dropped, 'hidden row')}" if dropped else ""
            return f"{_count(numbers['segments'], 'segment')} into {numbers['into']:,}{without}"
        case Operation.CONVERT if "into" in numbers and "dtype" in details:
            dropped = numbers.get("dropped_rows", 0)
            without = f" without {_count(dropped, 'hidden row')}" if dropped else ""
            return f"{_count(numbers['segments'], 'segment')} to {details['dtype']}{without}"
        case Operation.PURGE if "n_purged" in numbers:
            return f"{_count(numbers['n_purged'], 'sample')} gone for good"
        case Operation.REPAIR if "n_dropped" in numbers:
            return f"{_count(numbers['n_dropped'], 'sample')} lost to damage"
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in details.items())


def diff_of(sets: ActivationSets, first: SetVersion, second: SetVersion) -> SetDiff:
    """Compare two opened versions."""
    from nait_store.activations.difference import compare_samples

    samples = compare_samples(sets, first, second)
    segments = [{ref.segment_id for ref in version.refs} for version in (first, second)]
    return SetDiff(
        first=first.reference,
        second=second.reference,
        n_added=len(samples.added),
        n_removed=len(samples.removed),
        n_changed=len(samples.changed),
        n_kept=samples.n_kept,
        added=tuple(islice(samples.added.ids(), _FIRST)),
        removed=tuple(islice(samples.removed.ids(), _FIRST)),
        changed=tuple(islice(samples.changed.ids(), _FIRST)),
        features_added=tuple(f.value for f in second.features if f not in first.features),
        features_removed=tuple(f.value for f in first.features if f not in second.features),
        layers_added=tuple(layer for layer in second.layers if layer not in first.layers),
        layers_removed=tuple(layer for layer in first.layers if layer not in second.layers),
        n_segments_added=len(segments[1] - segments[0]),
        n_segments_removed=len(segments[0] - segments[1]),
        same_capture=first.record.capture_id == second.record.capture_id,
        samples=samples,
    )


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun if n == 1 else noun + 's'}"
