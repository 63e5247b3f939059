"""Rows of the catalog, read from the manifests and records of a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from nait_store.catalog.listing import Listing
from nait_store.errors import CorruptChunkError, FormatError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.activation_set import SegmentRecord, SegmentRef, SetManifest, SetRecord
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import ProfileManifest, ProfileRecord, SampleSource
from nait_store.schemas.record import Provenance, Record
from nait_store.schemas.selection import SelectionManifest, SelectionRecord
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location

Row = dict[str, Any]
Tables = dict[str, list[Row]]
R = TypeVar("R", bound=Record)

TABLES = ("activation_sets", "versions", "segments", "profiles", "profile_layers", "selections")
"""Tables that users see, in the order of the definition."""


class CatalogRows:
    """Reads the rows of every table, taking over those of an earlier catalog that cannot have changed.

    Parameters
    ----------
    location
        The store's root.
    listing
        The versions to describe.
    earlier
        Rows of an earlier catalog of the same store.

    Attributes
    ----------
    tables
        Table name → rows.
    problems
        One sentence per document that could not be read; what it describes is left out.
    """

    def __init__(self, location: Location, listing: Listing, earlier: Mapping[str, list[Row]] | None = None) -> None:
        self.tables: Tables = {name: [] for name in TABLES}
        self.problems: list[str] = []
        self._location = location
        self._earlier = {name: list((earlier or {}).get(name, ())) for name in TABLES}
        for name, numbers in listing.numbers(Kind.SET).items():
            self._add_set(name, numbers)
        for name, numbers in listing.numbers(Kind.PROFILE).items():
            self._add_items(Kind.PROFILE, name, numbers)
        for name, numbers in listing.numbers(Kind.SELECTION).items():
            self._add_items(Kind.SELECTION, name, numbers)

    def _add_set(self, name: str, numbers: tuple[int, ...]) -> None:
        versions = {row["version"]: row for row in self._known("versions", kind="set", name=name)}
        segments = {row["segment_id"]: row for row in self._known("segments", activation_set=name)}
        summary = self._known("activation_sets", activation_set=name)
        if set(versions) == set(numbers) and summary:
            self.tables["activation_sets"] += summary
            self.tables["versions"] += versions.values()
            self.tables["segments"] += segments.values()
            return
        try:
            record = self._read(SetRecord, layout.set_record(name))
            for number in numbers:
                if number not in versions:
                    manifest = self._manifest(SetManifest, Kind.SET, name, number)
                    versions[number] = _version_row(
                        Kind.SET, name, number, manifest, manifest.parent, manifest.operation, manifest.n_samples
                    )
                    for ref in manifest.segments:
                        if ref.segment_id not in segments:
                            segments[ref.segment_id] = self._segment_row(name, number, ref)
            current = self._current_segments(name, numbers[-1], segments)
        except _UNREADABLE as error:
            self.problems.append(f"set {name!r} is left out of the catalog: {error.what}")
            return
        self.tables["activation_sets"].append(_set_row(record, versions[numbers[-1]], len(numbers), current))
        self.tables["versions"] += _mark_latest([versions[number] for number in numbers])
        self.tables["segments"] += sorted(segments.values(), key=lambda row: int(row["ordinal"]))

    def _current_segments(self, name: str, number: int, segments: Mapping[str, Row]) -> list[Row]:
        manifest = self._manifest(SetManifest, Kind.SET, name, number)
        refs = manifest.segments
        if manifest.base is not None:
            refs = self._manifest(SetManifest, Kind.SET, name, manifest.base).segments + refs
        return [segments[ref.segment_id] for ref in refs]

    def _segment_row(self, name: str, number: int, ref: SegmentRef) -> Row:
        path = f"{layout.segment_folder(name, ref.segment_id)}/segment.json"
        record = self._read(SegmentRecord, path, ref.record_sha256)
        return {
            "activation_set": name,
            "segment_id": ref.segment_id,
            "ordinal": ref.ordinal,
            "first_version": number,
            "n_rows": record.n_rows,
            "features": [f.value for f in record.features],
            "layers": list(record.layers),
            "dtype": ", ".join(sorted({a.dtype.value for a in record.arrays})),
            "n_tokens": record.n_tokens,
            "n_truncated": record.n_truncated,
            "size_bytes": record.size_bytes,
            "user_fields": list(record.user_fields),
            "max_length_tokens": record.settings.max_length_tokens,
            "compute_dtype": record.settings.compute_dtype,
            "model_source": record.environment.model_source,
            "device": record.environment.device,
            "record_sha256": ref.record_sha256,
            **_written(record.provenance),
        }

    def _add_items(self, kind: Kind, name: str, numbers: tuple[int, ...]) -> None:
        table = "profiles" if kind is Kind.PROFILE else "selections"
        versions = {row["version"]: row for row in self._known("versions", kind=kind.value, name=name)}
        items = {row["version"]: row for row in self._known(table, **{kind.value: name})}
        layers = self._known("profile_layers", profile=name) if kind is Kind.PROFILE else []
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
        record = self._read(ProfileRecord, path, manifest.record_sha256)
        version = _version_row(Kind.PROFILE, name, number, manifest, record.parent, "build", record.source.n_samples)
        explained = [s.explained_variance_ratio for s in record.statistics if s.explained_variance_ratio is not None]
        row = {
            "profile": name,
            "version": number,
            "reference": f"{name}@{number}",
            "recipe": record.recipe.name,
            "method": record.recipe.method.value,
            "center": record.recipe.center,
            "profile_feature": record.recipe.profile_feature.value,
            "feature": record.recipe.feature.value,
            "metric": record.recipe.metric.value,
            "source": _source(record.source),
            "source_where": record.source.where,
            "background": None if record.background is None else _source(record.background),
            "n_samples": record.source.n_samples,
            "layers": list(record.layers),
            "n_neurons": record.n_neurons,
            "mean_explained_variance": sum(explained) / len(explained) if explained else None,
            "min_sign_margin": min((s.sign_margin for s in record.statistics), default=None),
            "warnings": list(record.warnings),
            "message": manifest.message,
            "card": record.card,
            "parent": record.parent,
            "hook_point": record.identity.hook_point.value,
            "capture_id": record.capture_id,
            "recipe_sha256": record.recipe_sha256,
            "directions_sha256": record.directions_sha256,
            **_written(manifest.provenance),
        }
        layers = [
            {
                "profile": name,
                "version": number,
                "reference": f"{name}@{number}",
                "layer": s.layer,
                "explained_variance_ratio": s.explained_variance_ratio,
                "sign_margin": s.sign_margin,
            }
            for s in record.statistics
        ]
        return version, row, layers

    def _selection_rows(self, name: str, number: int) -> tuple[Row, Row]:
        manifest = self._manifest(SelectionManifest, Kind.SELECTION, name, number)
        path = f"{layout.payload_folder(Kind.SELECTION, name, manifest.payload)}/selection.json"
        record = self._read(SelectionRecord, path, manifest.record_sha256)
        version = _version_row(Kind.SELECTION, name, number, manifest, None, "save", record.n_selected)
        row = {
            "selection": name,
            "version": number,
            "reference": f"{name}@{number}",
            "activation_set": record.set_ref,
            "profile": record.profile_ref,
            "strategy": record.strategy,
            "top": record.top,
            "condition": record.where,
            "seed": record.seed,
            "n_candidates": record.n_candidates,
            "n_selected": record.n_selected,
            "query": record.query,
            "message": manifest.message,
            **_written(manifest.provenance),
        }
        return version, row

    def _known(self, table: str, **equal: str) -> list[Row]:
        return [row for row in self._earlier[table] if all(row[key] == value for key, value in equal.items())]

    def _manifest(self, record_type: type[R], kind: Kind, name: str, number: int) -> R:
        return self._read(record_type, layout.version_document(kind, name, number))

    def _read(self, record_type: type[R], path: str, sha256: str | None = None) -> R:
        data = self._location.read_bytes(path)
        if sha256 is not None and sha256_bytes(data) != sha256:
            raise CorruptChunkError(f"{self._location.url_of(path)} differs from its recorded SHA-256")
        return record_type.from_json_bytes(data, self._location.url_of(path))


_UNREADABLE = (NotFoundError, FormatError)


def _version_row(
    kind: Kind,
    name: str,
    number: int,
    manifest: SetManifest | ProfileManifest | SelectionManifest,
    parent: int | None,
    operation: str,
    n_samples: int,
) -> Row:
    return {
        "kind": kind.value,
        "name": name,
        "version": number,
        "reference": f"{name}@{number}",
        "parent": parent,
        "operation": operation,
        "message": manifest.message,
        "n_samples": n_samples,
        "writer": manifest.provenance.writer,
        **_written(manifest.provenance),
    }


def _set_row(record: SetRecord, latest: Row, n_versions: int, segments: list[Row]) -> Row:
    identity = record.identity
    features = [f.value for f in Feature if segments and all(f.value in row["features"] for row in segments)]
    return {
        "activation_set": record.name,
        "latest_version": latest["version"],
        "n_versions": n_versions,
        "n_samples": latest["n_samples"],
        "n_segments": len(segments),
        "n_tokens": sum(row["n_tokens"] for row in segments),
        "size_bytes": sum(row["size_bytes"] for row in segments),
        "features": features,
        "layers": _common_layers(segments),
        "n_model_layers": record.n_model_layers,
        "n_neurons": record.n_neurons,
        "hook_point": identity.hook_point.value,
        "span": identity.span.value,
        "span_edges": identity.span_edges.value,
        "template": identity.template.name,
        "model_source": segments[-1]["model_source"] if segments else None,
        "model_fingerprint": identity.model_fingerprint,
        "tokenizer_fingerprint": identity.tokenizer_fingerprint,
        "capture_id": record.capture_id,
        "updated_at": latest["created_at"],
        **_written(record.provenance),
    }


def _common_layers(segments: list[Row]) -> list[int]:
    if not segments:
        return []
    return sorted(set(segments[0]["layers"]).intersection(*(row["layers"] for row in segments)))


def _mark_latest(rows: Iterable[Row]) -> list[Row]:
    marked = list(rows)
    newest = max((row["version"] for row in marked), default=None)
    return [{**row, "is_latest": row["version"] == newest} for row in marked]


def _written(provenance: Provenance) -> Row:
    return {"created_at": provenance.created_at, "author": provenance.author}


def _source(source: SampleSource) -> str:
    return f"{source.set_name}@{source.version}"
