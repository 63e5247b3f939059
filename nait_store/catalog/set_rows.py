"""Rows of the catalog about one activation set, read from its version documents and segment records."""

from __future__ import annotations

from nait_store.activations.versions import ActivationSets
from nait_store.catalog.documents import Documents, Row, version_row, written
from nait_store.refs import Kind
from nait_store.schemas.activation_set import SegmentRecord, SegmentRef, SetManifest, SetRecord
from nait_store.schemas.capture import Feature
from nait_store.storage import layout


class SetReading:
    """Reads what is new in a set: version documents, then the records of segments that they are the first to name."""

    def __init__(self, documents: Documents, name: str, numbers: tuple[int, ...], *, replaced: bool) -> None:
        self._documents = documents
        self._name = name
        self._numbers = numbers
        self._manifests: dict[int, SetManifest] = {}
        # Only where segments were replaced is there more to a version than its document says.
        self._sets = ActivationSets(documents.location) if replaced else None
        self._redirects = self._sets.redirects(name) if self._sets else None

    def add_new(self, versions: dict[int, Row], segments: dict[str, Row]) -> None:
        """Add a row for each version and segment that has none yet."""
        new = [number for number in self._numbers if number not in versions]
        self._documents.fetch(layout.version_document(Kind.SET, self._name, number) for number in new)
        first: dict[str, tuple[int, SegmentRef]] = {}
        bases: set[int] = set()
        for number in new:
            manifest = self._manifest(number)
            refs = manifest.segments
            if manifest.base is not None and manifest.base not in self._numbers and manifest.base not in bases:
                bases.add(manifest.base)
                refs = self._manifest(manifest.base).segments + refs
            for ref in self._followed(refs):
                if ref.segment_id not in segments:
                    first.setdefault(ref.segment_id, (number, ref))
            n_samples = self._sets.version(self._name, number).n_samples if self._sets else manifest.n_samples
            versions[number] = version_row(
                Kind.SET, self._name, number, manifest, manifest.parent, manifest.operation, n_samples
            )
        self._documents.fetch(_segment_document(self._name, segment_id) for segment_id in first)
        for segment_id, (number, ref) in first.items():
            segments[segment_id] = self._segment_row(number, ref)

    def refs(self, number: int) -> tuple[SegmentRef, ...]:
        """The segments of a version."""
        manifest = self._manifest(number)
        refs = manifest.segments
        if manifest.base is not None:
            refs = self._manifest(manifest.base).segments + refs
        return self._followed(refs)

    def _followed(self, refs: tuple[SegmentRef, ...]) -> tuple[SegmentRef, ...]:
        return self._redirects.follow_all(refs) if self._redirects else refs

    def _manifest(self, number: int) -> SetManifest:
        known = self._manifests.get(number)
        if known is None:
            known = self._documents.read(SetManifest, layout.version_document(Kind.SET, self._name, number))
            if known.base is None or number == self._numbers[-1]:  # the others are needed once
                self._manifests[number] = known
        return known

    def _segment_row(self, number: int, ref: SegmentRef) -> Row:
        record = self._documents.read(SegmentRecord, _segment_document(self._name, ref.segment_id), ref.record_sha256)
        return {
            "activation_set": self._name,
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
            "model_source": record.environment.model_label,
            "device": record.environment.device,
            "record_sha256": ref.record_sha256,
            **written(record.provenance),
        }


def _segment_document(name: str, segment_id: str) -> str:
    return f"{layout.segment_folder(name, segment_id)}/segment.json"


def set_row(record: SetRecord, latest: Row, n_versions: int, segments: list[Row]) -> Row:
    """One row of ``activation_sets``, from the rows of its latest version and of that version's segments."""
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
        "projections": [one.profile for one in record.projections],
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
        **written(record.provenance),
    }


def _common_layers(segments: list[Row]) -> list[int]:
    if not segments:
        return []
    return sorted(set(segments[0]["layers"]).intersection(*(row["layers"] for row in segments)))
