"""Rows of the catalog, read from the manifests and records of a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nait_store.catalog.documents import D, Documents, Row, version_row, written
from nait_store.catalog.label_rows import LabelReading
from nait_store.catalog.listing import Listing
from nait_store.catalog.set_rows import SetReading, set_row
from nait_store.errors import FormatError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.activation_set import SetRecord
from nait_store.schemas.profile import Method, ProfileManifest, ProfileRecord, SampleSource
from nait_store.schemas.selection import SelectionManifest, SelectionRecord, SelectionRedirect
from nait_store.storage import layout
from nait_store.storage.location import Location

Tables = dict[str, list[Row]]

TABLES = (
    "activation_sets",
    "versions",
    "segments",
    "profiles",
    "profile_layers",
    "aliases",
    "tags",
    "notes",
    "selections",
)
"""Tables that users see, in the order of the definition."""

_OWNERS = {
    "activation_sets": ("activation_set",),
    "versions": ("kind", "name"),
    "segments": ("activation_set",),
    "profiles": ("profile",),
    "profile_layers": ("profile",),
    "selections": ("selection",),
}
"""Columns that say which set, profile or selection a row is about."""


@dataclass(frozen=True)
class Earlier:
    """An earlier catalog of the same store.

    Attributes
    ----------
    tables
        Its rows.
    redirects
        Of its listing.
    labels
        Of its listing, those left out whose document could not be read.
    """

    tables: Mapping[str, list[Row]]
    redirects: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, int]


class CatalogRows:
    """Reads the rows of every table, taking over those of an earlier catalog that cannot have changed.

    Parameters
    ----------
    location
        The store's root.
    listing
        The versions to describe.
    earlier
        To take rows over from.

    Attributes
    ----------
    tables
        Table name → rows.
    labels
        Folder of an alias, tag or note → number of its document that the rows tell of.
    problems
        One sentence per document that could not be read; what it describes is left out.
    """

    def __init__(self, location: Location, listing: Listing, earlier: Earlier | None = None) -> None:
        self.tables: Tables = {name: [] for name in TABLES}
        self.problems: list[str] = []
        self._documents = Documents(location)
        self._replaced: set[str] = set()  # redirects of the selection at hand
        known = {name: [] if earlier is None else earlier.tables[name] for name in TABLES}
        self._earlier = {name: _by_owner(known[name], *columns) for name, columns in _OWNERS.items()}
        for name, numbers in listing.numbers(Kind.SET).items():
            folder = layout.item_folder(Kind.SET, name)
            same = earlier is not None and earlier.redirects.get(folder) == listing.redirects.get(folder)
            self._add_set(name, numbers, replaced=folder in listing.redirects, may_take_over=same)
        for name, numbers in listing.numbers(Kind.PROFILE).items():
            self._add_items(Kind.PROFILE, name, numbers)
        for name, numbers in listing.numbers(Kind.SELECTION).items():
            folder = layout.item_folder(Kind.SELECTION, name)
            self._replaced = set(listing.redirects.get(folder, ()))
            same = earlier is not None and earlier.redirects.get(folder) == listing.redirects.get(folder)
            self._add_items(Kind.SELECTION, name, numbers, may_take_over=same)
        reading = LabelReading(self._documents, listing, known, {} if earlier is None else earlier.labels)
        self.tables |= reading.tables
        self.labels = reading.numbers
        self.problems += reading.problems

    def _add_set(self, name: str, numbers: tuple[int, ...], *, replaced: bool, may_take_over: bool) -> None:
        versions = {row["version"]: row for row in self._known("versions", Kind.SET.value, name)}
        segments = {row["segment_id"]: row for row in self._known("segments", name)}
        summary = self._known("activation_sets", name)
        # A version that went or came back changes what the segments of others are the first ones to refer to.
        if not may_take_over or tuple(sorted(versions)) != numbers[: len(versions)]:
            versions, segments, summary = {}, {}, []
        if len(versions) == len(numbers) and summary:
            self.tables["activation_sets"] += summary
            self.tables["versions"] += versions.values()
            self.tables["segments"] += segments.values()
            return
        try:
            reading = SetReading(self._documents, name, numbers, replaced=replaced)
            record = self._documents.read(SetRecord, layout.set_record(name))
            reading.add_new(versions, segments)
            current = [segments[ref.segment_id] for ref in reading.refs(numbers[-1])]
        except _UNREADABLE as error:
            self.problems.append(f"set {name!r} is left out of the catalog: {error.what}")
            return
        self.tables["activation_sets"].append(set_row(record, versions[numbers[-1]], len(numbers), current))
        self.tables["versions"] += _mark_latest([versions[number] for number in numbers])
        self.tables["segments"] += sorted(segments.values(), key=lambda row: int(row["ordinal"]))

    def _add_items(self, kind: Kind, name: str, numbers: tuple[int, ...], *, may_take_over: bool = True) -> None:
        table = "profiles" if kind is Kind.PROFILE else "selections"
        versions = {row["version"]: row for row in self._known("versions", kind.value, name)}
        items = {row["version"]: row for row in self._known(table, name)}
        if not may_take_over:
            versions, items = {}, {}
        layers = self._known("profile_layers", name) if kind is Kind.PROFILE else []
        new = [number for number in numbers if number not in versions or number not in items]
        self._documents.fetch(layout.version_document(kind, name, number) for number in new)
        for number in numbers:
            if number in versions and number in items:
                continue
            try:
                if kind is Kind.PROFILE:
                    versions[number], items[number], added = self._profile_rows(name, number)
                    layers = [row for row in layers if row["version"] != number] + added
                else:
                    versions[number], items[number] = self._selection_rows(name, number)
            except _UNREADABLE as error:
                self.problems.append(f"{kind} {name}@{number} is left out of the catalog: {error.what}")
        listed = [number for number in numbers if number in versions and number in items]
        self.tables["versions"] += _mark_latest([versions[number] for number in listed])
        self.tables[table] += _mark_latest([items[number] for number in listed])
        self.tables["profile_layers"] += [row for row in layers if row["version"] in listed]

    def _profile_rows(self, name: str, number: int) -> tuple[Row, Row, list[Row]]:
        manifest = self._manifest(ProfileManifest, Kind.PROFILE, name, number)
        path = f"{layout.payload_folder(Kind.PROFILE, name, manifest.payload)}/profile.json"
        record = self._documents.read(ProfileRecord, path, manifest.record_sha256)
        source = record.source
        n_samples = None if source is None else source.n_samples
        operation = _OPERATIONS.get(record.recipe.method, "build")
        version = version_row(Kind.PROFILE, name, number, manifest, record.parent, operation, n_samples)
        explained = [s.explained_variance_ratio for s in record.statistics if s.explained_variance_ratio is not None]
        row = {
            "profile": name,
            "version": number,
            "reference": f"{name}@{number}",
            "recipe": record.recipe.name,
            "method": record.recipe.method.value,
            "center": record.recipe.center,
            "component": record.recipe.component if record.recipe.method is Method.PCA else None,
            "profile_feature": record.recipe.profile_feature.value,
            "feature": record.recipe.feature.value,
            "metric": record.recipe.metric.value,
            "made_from": record.made_from,
            "source": _source(source),
            "source_where": None if source is None else source.where,
            "background": _source(record.background),
            "parts": None if record.parts is None else [part.reference for part in record.parts],
            "n_samples": n_samples,
            "layers": list(record.layers),
            "n_neurons": record.n_neurons,
            "mean_explained_variance": sum(explained) / len(explained) if explained else None,
            "min_sign_margin": min((s.sign_margin for s in record.statistics), default=None),
            "warnings": list(record.warnings),
            "message": manifest.message,
            "card": record.card,
            "parent": record.parent,
            "ported_from": None if record.ported_from is None else record.ported_from.reference,
            "family_keys": list(record.family_keys),
            "model": record.model,
            "hook_point": record.identity.hook_point.value,
            "capture_id": record.capture_id,
            "recipe_sha256": record.recipe_sha256,
            "directions_sha256": record.directions_sha256,
            **written(manifest.provenance),
        }
        layers = [
            {
                "profile": name,
                "version": number,
                "reference": f"{name}@{number}",
                "layer": s.layer,
                "explained_variance_ratio": s.explained_variance_ratio,
                "eigenvalue_gap": s.eigenvalue_gap,
                "sign_margin": s.sign_margin,
            }
            for s in record.statistics
        ]
        return version, row, layers

    def _selection_rows(self, name: str, number: int) -> tuple[Row, Row]:
        manifest = self._manifest(SelectionManifest, Kind.SELECTION, name, number)
        payload, digest, replaced = manifest.payload, manifest.record_sha256, set(self._replaced)
        while f"{payload}.json" in replaced:
            replaced.remove(f"{payload}.json")  # so that a circle ends
            path = f"{layout.redirects_folder(Kind.SELECTION, name)}/{payload}.json"
            redirect = self._documents.read(SelectionRedirect, path)
            payload, digest = redirect.replacement, redirect.record_sha256
        path = f"{layout.payload_folder(Kind.SELECTION, name, payload)}/selection.json"
        record = self._documents.read(SelectionRecord, path, digest)
        version = version_row(Kind.SELECTION, name, number, manifest, None, "save", record.n_selected)
        row = {
            "selection": name,
            "version": number,
            "reference": f"{name}@{number}",
            "activation_set": record.set_ref,
            "profile": record.ranked_by,
            "strategy": record.strategy,
            "top": record.top,
            "condition": record.where,
            "seed": record.seed,
            "n_candidates": record.n_candidates,
            "n_selected": record.n_selected,
            "query": record.query,
            "message": manifest.message,
            **written(manifest.provenance),
        }
        return version, row

    def _known(self, table: str, *owner: str) -> list[Row]:
        return self._earlier[table].get(owner, [])

    def _manifest(self, record_type: type[D], kind: Kind, name: str, number: int) -> D:
        return self._documents.read(record_type, layout.version_document(kind, name, number))


_UNREADABLE = (NotFoundError, FormatError)
_OPERATIONS = {Method.IMPORTED: "import", Method.COMBINED: "combine"}


def _by_owner(rows: Iterable[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[column] for column in columns), []).append(row)
    return found


def _mark_latest(rows: Iterable[Row]) -> list[Row]:
    marked = list(rows)
    newest = max((row["version"] for row in marked), default=None)
    return [{**row, "is_latest": row["version"] == newest} for row in marked]


def _source(source: SampleSource | None) -> str | None:
    return None if source is None else f"{source.set_name}@{source.version}"
