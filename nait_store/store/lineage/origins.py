"""What a version was made from, as its own documents say.

The only place that knows which record names what: a new way to make a profile adds what its record names to
``_of_profile``, and graph and drawings follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from nait_store.errors import NaitStoreError
from nait_store.refs import Kind, Reference, parse_reference
from nait_store.schemas.activation_set import Operation, SetManifest
from nait_store.schemas.profile import ProfileManifest, ProfileRecord, SampleSource
from nait_store.schemas.record import SourceFile
from nait_store.schemas.selection import SelectionManifest
from nait_store.storage.versions import VersionLog, VersionNumbers
from nait_store.store.lineage.graph import LineageNode, NodeKind, NodeState
from nait_store.store.lineage.ingest_records import ingests_of, read_plan, recorded_ingest, sets_read
from nait_store.store.set_history import in_words

if TYPE_CHECKING:
    from nait_store.schemas.capture import CaptureEnvironment, CaptureIdentity
    from nait_store.schemas.sharing import Origin as PublishedOrigin
    from nait_store.store.facade import Store

_SHOWN_DIGITS = 12
_UNKNOWN_MODEL = "a model whose path is not recorded"
_FROM_BEFORE = {
    Operation.INGEST: "appended to",
    Operation.DELETE_SAMPLES: "samples deleted",
    Operation.COMPACT: "compacted",
    Operation.CONVERT: "converted",
    Operation.PURGE: "samples purged",
    Operation.REPAIR: "repaired",
}
"""What was done to the version before."""


@dataclass(frozen=True)
class Origin:
    """One thing that a version was made from.

    Attributes
    ----------
    relation
        What it was to the version: ``built from``, ``ingested`` …
    version
        A version of this store, with its number; None for others.
    thing
        What lies outside: a file, a model, a published version; None for others.
    """

    relation: str
    version: Reference | None = None
    thing: LineageNode | None = None


class Origins:
    """Reads what versions were made from; every document once.

    Parameters
    ----------
    store
        The store.

    Attributes
    ----------
    gaps
        What could not be told so far, each once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._location = store.location
        self._logs: dict[Kind, VersionLog[Any]] = {
            Kind.SET: store.sets.versions.log,
            Kind.PROFILE: store.profiles.registry.log,
            Kind.SELECTION: VersionLog(store.location, Kind.SELECTION, SelectionManifest),
        }
        self.gaps: dict[str, None] = {}
        self.listing = cache(self._listing)

    def names(self, kind: Kind) -> list[str]:
        """Names of everything of a kind, also of what is deleted as a whole."""
        return self._logs[kind].all_names()

    def state(self, version: Reference) -> NodeState:
        """Whether a version is there."""
        numbers = self.listing(version.kind, version.name)
        if version.version in numbers.collected:
            return NodeState.COLLECTED
        if version.version in numbers.deleted:
            return NodeState.DELETED
        return NodeState.PRESENT if version.version in numbers.documents else NodeState.MISSING

    def node(self, version: Reference) -> LineageNode:
        """Describe a version as far as its documents can be read."""
        kind = NodeKind(version.kind.value)
        bare = LineageNode(version.qualified, kind, str(version), self.state(version))
        try:
            return self._described(version, bare)
        except NaitStoreError as error:
            self._note(version, error)
            return bare

    def of(self, version: Reference, *, outside: bool = True) -> list[Origin]:
        """What a version was made from; nothing, and a gap, where its documents are gone.

        Parameters
        ----------
        version
            With a number.
        outside
            Whether to look for files and models too, which takes more reading.
        """
        read = {Kind.SET: self._of_set, Kind.PROFILE: self._of_profile, Kind.SELECTION: self._of_selection}
        try:
            return list(read[version.kind](version, outside))
        except NaitStoreError as error:
            self._note(version, error)
            return []

    def _of_set(self, version: Reference, outside: bool) -> Iterator[Origin]:
        number = number_of(version)
        try:
            manifest: SetManifest | None = self._logs[Kind.SET].read(version.name, number)
        except NaitStoreError:
            # gc takes the document of a version and may leave the journals of the ingests that it came from.
            if self.state(version) is not NodeState.COLLECTED:
                raise
            manifest = None
            self._note(version, None)
        record = self._store.sets.versions.record(version.name)
        for one in record.projections if record is not None else ():
            yield Origin("keeps projections on", parse_reference(one.profile, Kind.PROFILE))
        if manifest is None:
            ingest_ids = ingests_of(self._location, version.name, number)
        else:
            yield from self._before(version, manifest)
            ingest_ids = list(manifest.ingest_ids)
        for ingest_id in ingest_ids:
            plan = read_plan(self._location, version.name, ingest_id)
            for read in sets_read(plan) if plan is not None else ():
                yield Origin("samples of, captured again", read)
            if outside:
                yield from self._ingested(version, ingest_id, record.identity if record is not None else None)
        if manifest is not None and outside and self._lost_its_beginning(version.name, manifest):
            yield from self._seen_in_segments(version)

    def _before(self, version: Reference, manifest: SetManifest) -> Iterator[Origin]:
        restored = manifest.details.get("restored")
        if manifest.operation is Operation.RESTORE and isinstance(restored, int):
            # Nothing of the version before is in it: only the number says that it came later.
            yield Origin("restored", replace(version, version=restored))
        elif manifest.parent is not None:
            relation = _FROM_BEFORE.get(manifest.operation, "made from")
            yield Origin(relation, replace(version, version=manifest.parent))

    def _ingested(self, version: Reference, ingest_id: str, identity: CaptureIdentity | None) -> Iterator[Origin]:
        ingest = recorded_ingest(self._location, version.name, ingest_id)
        if ingest is None:
            self._gap(f"from which files ingest {ingest_id} of {version.qualified} read is not recorded any more")
        read = {one.qualified for one in sets_read(ingest.plan)} if ingest is not None else set()
        for source in ingest.plan.sources if ingest is not None else ():
            if source.uri not in read:
                yield Origin("ingested", thing=file_node(source))
        measured = ingest.plan.identity or identity if ingest is not None else identity
        if measured is not None:
            environment = ingest.segment.environment if ingest is not None and ingest.segment is not None else None
            yield Origin("captured with", thing=model_node(measured, environment))

    def _lost_its_beginning(self, name: str, manifest: SetManifest) -> bool:
        """Whether the version that this one goes on from is gone, and with it what is known of its ingests."""
        if manifest.operation is Operation.RESTORE:
            before = manifest.details.get("restored")
        else:
            before = manifest.parent
        return before is not None and before not in self.listing(Kind.SET, name).documents

    def _seen_in_segments(self, version: Reference) -> Iterator[Origin]:
        """Files that the samples themselves say they came from, names without digests; and the model."""
        opened = self._store.sets.versions.version(version.name, number_of(version))
        uris = {
            uri for segment in opened.segments for uri in segment.samples(["source_uri"]).column(0).unique().to_pylist()
        }
        for uri in sorted(uris):
            yield Origin("holds samples of", thing=file_node(SourceFile(uri=uri)))
        for segment in opened.segments[:1]:
            yield Origin("captured with", thing=model_node(opened.record.identity, segment.record.environment))

    def _of_profile(self, version: Reference, outside: bool) -> Iterator[Origin]:
        profile = self._store.profiles.registry.version(version.name, number_of(version))
        record, pulled_from = profile.record, profile.manifest.origin
        model = replace(model_node(record.identity, None), name=record.model or _UNKNOWN_MODEL)
        if pulled_from is not None:
            # The sets that its record names are those of the store that published it, whatever is called so here.
            yield Origin("pulled from", thing=shared_node(pulled_from, profile.manifest.record_sha256))
            yield Origin("built with", thing=model)
            return
        sources, file = sample_sources(record), record.imported
        for relation, source in sources.items():
            yield Origin(relation, source.reference)
        if record.source is not None and record.source.weights is not None and record.source.weights.file is not None:
            yield Origin("weighted by", thing=file_node(record.source.weights.file))
        if record.ported_from is not None:
            ported_from = record.ported_from
            yield Origin("ported from", Reference(Kind.PROFILE, ported_from.name, version=ported_from.version))
        if file is not None:
            imported = SourceFile(uri=file.url, size_bytes=file.size_bytes, sha256=file.sha256)
            yield Origin("imported from", thing=file_node(imported))
        if (like := imported_like(record)) is not None:
            yield Origin("captured like", like)
        for part in record.parts or ():
            relation = "combined from" if part.weight is not None else "made orthogonal to"
            yield Origin(relation, Reference(Kind.PROFILE, part.name, version=part.version))
        gone = (NodeState.COLLECTED, NodeState.MISSING)
        if outside and not record.parts and all(self.state(source.reference) in gone for source in sources.values()):
            # The sets would have said it; where there are none any more the profile still knows its model.
            yield Origin("built with", thing=model)

    def _of_selection(self, version: Reference, _outside: bool) -> Iterator[Origin]:
        record = self._store.selections.version(version.name, number_of(version)).record
        yield Origin("selected from", parse_reference(record.set_ref, Kind.SET))
        if record.in_domain is not None:
            yield Origin("compared with", parse_reference(record.in_domain, Kind.SET))
        for profile in record.profiles_with_weights:
            yield Origin("ranked by", parse_reference(profile.reference, Kind.PROFILE))

    def _described(self, version: Reference, bare: LineageNode) -> LineageNode:
        number = number_of(version)
        if bare.state is NodeState.MISSING or number not in self.listing(version.kind, version.name).documents:
            return bare
        manifest = self._logs[version.kind].read(version.name, number)
        made = {"author": manifest.provenance.author, "created_at": manifest.provenance.created_at}
        if isinstance(manifest, SetManifest):
            what = " ".join(filter(None, [manifest.operation.value, in_words(manifest)]))
            return replace(bare, what=what, digest=manifest.digest(), n_samples=manifest.n_samples, **made)
        if bare.state is NodeState.COLLECTED:  # the document of the highest number stays, what it refers to does not
            return replace(bare, **made)
        if isinstance(manifest, ProfileManifest):
            profile = self._store.profiles.registry.version(version.name, number).record
            what = f"{profile.recipe.in_words}; {profile.made_from}"
            what += " there" if manifest.origin is not None else ""
            digest = profile.directions_sha256
            n_samples = None if profile.source is None else profile.source.n_samples
            return replace(bare, what=what, digest=digest, n_samples=n_samples, **made)
        chosen = self._store.selections.version(version.name, number).record
        what = f"{chosen.top} of {chosen.n_candidates:,} candidates, {chosen.strategy}"
        what += f" where {chosen.where}" if chosen.where else ""
        return replace(bare, what=what, digest=manifest.digest(), n_samples=chosen.n_selected, **made)

    def _listing(self, kind: Kind, name: str) -> VersionNumbers:
        return self._logs[kind].listing(name)

    def _note(self, version: Reference, error: NaitStoreError | None) -> None:
        state = self.state(version)
        if state is NodeState.MISSING:
            self._gap(f"{version.qualified} is not in this store, and what it was made from is not known")
        elif state is NodeState.COLLECTED:
            self._gap(f"{version.qualified} was deleted, and gc has taken its records")
        elif error is not None:
            self._gap(f"what {version.qualified} was made from cannot be read: {error.what}")

    def _gap(self, text: str) -> None:
        self.gaps[text] = None


def sample_sources(record: ProfileRecord) -> dict[str, SampleSource]:
    """The samples that a profile was built from, in-domain ones first: what they were to it → which they are."""
    found = {"built from": record.source, "built against": record.background}
    return {relation: source for relation, source in found.items() if source is not None}


def imported_like(record: ProfileRecord) -> Reference | None:
    """The set or profile that told what the directions of an imported profile are of; None where the file told it."""
    if record.imported is None:
        return None
    kind, colon, _ = str(record.parameters.get("like", "")).partition(":")
    return parse_reference(record.parameters["like"], Kind(kind)) if colon and kind in set(Kind) else None


def number_of(version: Reference) -> int:
    """Number of a version; the references of a graph all have one."""
    if version.version is None:
        raise ValueError(f"{version.qualified} has no number")
    return version.version


def file_node(source: SourceFile) -> LineageNode:
    """An input file; the same bytes under the same name are the same node."""
    suffix = f"#{source.sha256[:_SHOWN_DIGITS]}" if source.sha256 else ""
    return LineageNode(
        id=f"file:{source.uri}{suffix}",
        kind=NodeKind.FILE,
        name=source.uri,
        state=NodeState.OUTSIDE,
        digest=source.sha256,
        size_bytes=source.size_bytes,
    )


def shared_node(pulled_from: PublishedOrigin, record_sha256: str) -> LineageNode:
    """A version in a registry that stores share, as it was when it was pulled."""
    published = f"{pulled_from.name}@{pulled_from.number}"
    return LineageNode(
        id=f"shared:{pulled_from.url}#{published}",
        kind=NodeKind.SHARED,
        name=f"{published} of {pulled_from.url}",
        state=NodeState.OUTSIDE,
        what=f"published by {pulled_from.published_by}",
        digest=record_sha256,
        created_at=pulled_from.published_at,
    )


def model_node(identity: CaptureIdentity, environment: CaptureEnvironment | None) -> LineageNode:
    """A model by its fingerprint; the name is the path or id that was given, where a segment still tells it."""
    what = f"tokenizer {identity.tokenizer_fingerprint[:_SHOWN_DIGITS]}…"
    if environment is not None:
        revision = f" at {environment.model_revision}" if environment.model_revision else ""
        what = f"{environment.model_type}{revision}, {environment.n_parameters:,} parameters, {what}"
    return LineageNode(
        id=f"model:{identity.model_fingerprint[:_SHOWN_DIGITS]}",
        kind=NodeKind.MODEL,
        name=_UNKNOWN_MODEL if environment is None else environment.model_label,
        state=NodeState.OUTSIDE,
        what=what,
        digest=identity.model_fingerprint,
    )
