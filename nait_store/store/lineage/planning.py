"""From a lineage to the commands that make it again, in an order in which each finds what it needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from nait_store.errors import NaitStoreError
from nait_store.refs import Kind, Reference, parse_reference
from nait_store.schemas.activation_set import Operation, SetManifest, SetRecord
from nait_store.schemas.profile import ProfileRecord
from nait_store.store.lineage.commands import (
    build_arguments,
    combine_arguments,
    import_arguments,
    ingest_arguments,
    port_arguments,
    select_arguments,
    unspelled_choices,
)
from nait_store.store.lineage.graph import Lineage, NodeKind
from nait_store.store.lineage.ingest_records import RecordedIngest, recorded_ingest, sets_read
from nait_store.store.lineage.origins import imported_like, number_of, sample_sources
from nait_store.store.lineage.steps import Counterpart, Input, Step, Steps, can_be_lines
from nait_store.store.lineage.tracing import find_version, trace

if TYPE_CHECKING:
    from nait_store.store.facade import Store


def plan_reproduction(store: Store, reference: str, moved: Mapping[str, str]) -> Steps:
    """Find the commands that make a version again.

    Parameters
    ----------
    store
        The store.
    reference
        Any version.
    moved
        Recorded path, URL or hub id of a file or model → where it is now.
    """
    root = find_version(store, reference)
    planner = _Planner(store, lambda name: moved.get(name, name))
    lineage = trace(store, root.qualified, "up")
    for gap in lineage.gaps:
        planner.obstacles[gap] = None
    for version in _in_order(lineage):
        planner.add(version)
    return planner.finished(root)


class _Planner:
    """Steps as they are found; every version is added after all that it was made from."""

    def __init__(self, store: Store, located: Callable[[str], str]) -> None:
        self._store = store
        self._located = located
        self._steps: list[Step] = []
        self._here: dict[Reference, Reference] = {}
        self._latest: dict[tuple[Kind, str], int] = defaultdict(int)
        self._last_ingest: dict[str, tuple[str, ...]] = {}
        self._inputs: dict[str, Input] = {}
        self._models: dict[str, str] = {}
        self._captured_again: dict[Reference, RecordedIngest] = {}  # sets that ports make, until their profiles come
        self.obstacles: dict[str, None] = {}

    def add(self, version: Reference) -> None:
        """Add what makes a version again."""
        add = {Kind.SET: self._add_set, Kind.PROFILE: self._add_profile, Kind.SELECTION: self._add_selection}
        try:
            add[version.kind](version)
        except NaitStoreError as error:
            self._object(f"{version.qualified}: {error.what}")
        except KeyError as error:  # what it was made from could not be added, which was told
            self._object(f"{version.qualified} needs {error.args[0]}, which cannot be made again")

    def finished(self, root: Reference) -> Steps:
        """All of it."""
        for version in self._captured_again.keys() - self._here.keys():
            self._object(f"{version.qualified} was captured to port a profile, which is not among what is made again")
        return Steps(
            root=root,
            inputs=tuple(self._inputs.values()),
            models=self._models,
            steps=tuple(self._steps),
            counterparts=tuple(Counterpart(*pair) for pair in self._here.items()),
            obstacles=tuple(self.obstacles),
        )

    def _add_set(self, version: Reference) -> None:
        manifest = self._store.sets.versions.manifest(version.name, number_of(version))
        details = manifest.details
        before = None if manifest.parent is None else Reference(Kind.SET, version.name, version=manifest.parent)
        if manifest.operation is Operation.RESTORE:
            restored = Reference(Kind.SET, version.name, version=details["restored"])
            self._go_back_to(restored)
            self._here[version] = self._known(restored)
            return
        if before is not None:
            self._go_back_to(before)
        match manifest.operation:
            case Operation.INGEST:
                self._ingest(version, manifest)
            case Operation.DELETE_SAMPLES if before is not None:
                self._delete_samples(version, before, manifest)
            case Operation.CONVERT if before is not None:
                said = _said(manifest.message)
                self._make(version, ("sets", "convert", version.name, "--dtype", str(details["dtype"]), *said))
            case Operation.COMPACT if before is not None:
                # It changes no sample and no number, and whether there is anything to merge depends on the machine.
                self._here[version] = self._known(before)
            case Operation.PURGE:
                self._object(
                    f"{version.qualified} is without samples that were purged, and nobody knows which any more"
                )
            case Operation.REPAIR if before is not None:
                self._object(f"{version.qualified} is without samples that were lost to damage")
            case _:
                self._object(f"{version.qualified} goes on from a version that is not recorded")

    def _go_back_to(self, before: Reference) -> None:
        """Make a version the latest of its set here, as it was when the next one was made from it."""
        here = self._known(before)
        if here.version != self._latest[Kind.SET, before.name]:
            self._last_ingest.pop(before.name, None)
            self._make(None, ("sets", "restore", str(here)), of=before)

    def _ingest(self, version: Reference, manifest: SetManifest) -> None:
        record = self._store.sets.versions.record(version.name)
        if record is None:
            self._object(f"the identity of set {version.name} is not recorded any more")
            return
        made = False
        for ingest_id in manifest.ingest_ids:
            ingest = recorded_ingest(self._store.location, version.name, ingest_id)
            if ingest is not None and ingest.segment is not None and sets_read(ingest.plan):
                self._captured_again[version] = ingest
                return
            if ingest is None or ingest.segment is None:
                self._object(f"ingest {ingest_id} of {version.qualified} is not recorded well enough any more")
                continue
            made = self._one_ingest(version, record, ingest, manifest.message) or made
        if not made and not manifest.ingest_ids:
            self._object(f"{version.qualified} names no ingest")

    def _one_ingest(self, version: Reference, record: SetRecord, ingest: RecordedIngest, message: str) -> bool:
        assert ingest.segment is not None
        environment, choices = ingest.segment.environment, ingest.plan.choices
        notes = []
        if choices is None:
            notes.append(
                "--map, --id-field, --on-error and --limit of this ingest were not recorded: defaults are taken"
            )
            if ingest.plan.command:
                notes.append(f"it was begun by: {ingest.plan.command}")
        elif choices.n_only is not None:
            self._object(f"an ingest of {version.qualified} took {choices.n_only:,} samples that were named one by one")
        elif any(set(",=") & set(field) or field != field.strip() for field in choices.field_map.values()):
            self._object(f"a field that {version.qualified} maps has a name that --map cannot spell")
        if environment.model_revision:
            notes.append(f"the hub's revision was {environment.model_revision}")
        for source in ingest.plan.sources:
            uri = self._located(source.uri)
            self._inputs[uri] = Input(uri, source.uri, source.sha256, source.size_bytes)
        self._models[self._located(environment.model_source)] = record.identity.model_fingerprint
        projected = [self._known(parse_reference(one.profile, Kind.PROFILE)) for one in ingest.plan.projections]
        arguments = ingest_arguments(ingest, record, message, self._located, projected)
        if self._last_ingest.get(version.name) == arguments:
            # It was interrupted, and run again: here the first run takes everything.
            self._here[version] = Reference(Kind.SET, version.name, version=self._latest[Kind.SET, version.name])
            return True
        self._make(version, arguments, notes=tuple(notes))
        self._last_ingest[version.name] = arguments
        return True

    def _delete_samples(self, version: Reference, before: Reference, manifest: SetManifest) -> None:
        arguments = ("sets", "delete-samples", version.name)
        everything = () if manifest.n_samples else ("--all",)
        where = manifest.details.get("where")
        if isinstance(where, str):
            condition = (f"--where={where}",) if where.startswith("-") else ("--where", where)
            self._make(version, (*arguments, *condition, *everything, *_said(manifest.message)))
            return
        from nait_store.activations.difference import SampleChange, compare_samples

        sets = self._store.sets.versions
        first, second = (sets.version(one.name, number_of(one)) for one in (before, version))
        ids = sorted(compare_samples(sets, first, second).of(SampleChange.REMOVED).ids())
        if not can_be_lines(ids):
            self._object(f"an id that {version.qualified} leaves out cannot be written on a line of its own")
            return
        self._make(version, (*arguments, "--ids", "-", *everything, *_said(manifest.message)), lines=tuple(ids))

    def _add_profile(self, version: Reference) -> None:
        profile = self._store.profiles.registry.version(version.name, number_of(version))
        record, message, pulled_from = profile.record, profile.manifest.message, profile.manifest.origin
        if pulled_from is not None:
            # Under the next number here, whatever it is there, so that the later commands find it.
            published = f"{pulled_from.name}@{pulled_from.number}"
            self._make(version, ("pull", "--as", version.name, "--", published, self._located(pulled_from.url)))
            return
        if record.imported is not None:
            file, like = record.imported, imported_like(record)
            uri = self._located(file.url)
            self._inputs[uri] = Input(uri, file.url, file.sha256, file.size_bytes)
            told = None if like is None else self._known(like)
            self._make(version, import_arguments(record, message, self._located, told))
            return
        if record.parts is not None:
            for part in record.parts:
                self._known(Reference(Kind.PROFILE, part.name, version=part.version))
            self._make(version, combine_arguments(record, message, self._here))
            return
        unspelled = unspelled_choices(record.recipe)
        if unspelled:
            self._object(f"{version.qualified} records choices that no option spells: {', '.join(unspelled)}")
            return
        sources = [source.reference for source in sample_sources(record).values()]
        if record.ported_from is not None and sources[0] in self._captured_again:
            self._port(version, record, message, sources)
            return
        for source in sources:
            self._known(source)
        self._add_weights(record)
        self._make(version, build_arguments(record, message, self._located, self._here))

    def _port(self, version: Reference, record: ProfileRecord, message: str, sources: Sequence[Reference]) -> None:
        """One command that captures the samples, of the background too where that was captured again, and builds."""
        ingest = self._captured_again[sources[0]]
        weighted = record.source is not None and record.source.weights is not None
        if sources[0] in self._here and not weighted:  # an earlier port of the same samples has made it
            self._make(version, build_arguments(record, message, self._located, self._here))
            return
        assert ingest.segment is not None
        self._models[self._located(ingest.segment.environment.model_source)] = record.identity.model_fingerprint
        self._make(version, port_arguments(record, message, ingest, self._located, self._here))
        for made in sources:
            if made in self._captured_again and made not in self._here:
                self._latest[made.kind, made.name] += 1
                self._here[made] = Reference(made.kind, made.name, version=self._latest[made.kind, made.name])

    def _add_weights(self, record: ProfileRecord) -> None:
        """Note the file that the in-domain samples' weights are from, if they are from one."""
        weights = None if record.source is None else record.source.weights
        if weights is not None and weights.file is not None:
            uri = self._located(weights.file.uri)
            self._inputs[uri] = Input(uri, weights.file.uri, weights.file.sha256, weights.file.size_bytes)

    def _add_selection(self, version: Reference) -> None:
        record = self._store.selections.version(version.name, number_of(version)).record
        message = self._store.selections.manifest(version.name, number_of(version)).message
        set_ref = self._known(parse_reference(record.set_ref, Kind.SET))
        in_domain = None if record.in_domain is None else self._known(parse_reference(record.in_domain, Kind.SET))
        named = [one.reference for one in record.profiles_with_weights]
        profiles = [self._known(parse_reference(reference, Kind.PROFILE)) for reference in named]
        self._make(version, select_arguments(record, message, set_ref, profiles, in_domain))

    def _make(
        self,
        version: Reference | None,
        arguments: tuple[str, ...],
        *,
        of: Reference | None = None,
        lines: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        about = version or of
        assert about is not None
        key = (about.kind, about.name)
        self._latest[key] += 1
        here = Reference(about.kind, about.name, version=self._latest[key])
        self._here[about] = here
        self._steps.append(Step(arguments, version, here if version is not None else None, lines, notes))

    def _known(self, version: Reference) -> Reference:
        if version not in self._here:
            raise KeyError(version.qualified)
        return self._here[version]

    def _object(self, text: str) -> None:
        self.obstacles[text] = None


def _in_order(lineage: Lineage) -> list[Reference]:
    """The versions, each after all that it was made from, and those of one set by their numbers.

    A command changes the latest version of a set, so another order would change another version.
    """
    versions = {
        node.id: parse_reference(node.id, Kind(node.kind.value))
        for node in lineage.nodes
        if node.kind in (NodeKind.SET, NodeKind.PROFILE, NodeKind.SELECTION)
    }
    waiting = {node_id: {e.source for e in lineage.origins(node_id) if e.source in versions} for node_id in versions}
    for node_id, version in versions.items():
        if version.kind is Kind.SET:
            waiting[node_id] |= {
                other_id
                for other_id, other in versions.items()
                if (other.kind, other.name) == (version.kind, version.name) and number_of(other) < number_of(version)
            }
    ordered = []
    while waiting:
        # Where forged numbers contradict what was made from what, the first one: its command fails, and says why.
        ready = next((node_id for node_id, before in waiting.items() if not before), next(iter(waiting)))
        del waiting[ready]
        for before in waiting.values():
            before.discard(ready)
        ordered.append(versions[ready])
    return ordered


def _said(message: str) -> tuple[str, ...]:
    return (f"--message={message}",) if message else ()
