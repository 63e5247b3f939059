"""A saved selection for a trainer: where it comes from, and how its records are to be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nait_store.errors import InvalidInputError, NotFoundError, did_you_mean
from nait_store.refs import Kind, parse_reference
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.store.lineage.ingest_records import recorded_ingest
from nait_store.store.lineage.origins import number_of
from nait_store.store.selection_details import missing_parents

if TYPE_CHECKING:
    from nait_store.activations.versions import SetVersion
    from nait_store.capture.conversations import FieldMap
    from nait_store.schemas.selection import ProfileWeight
    from nait_store.selection.saved import SavedSelection
    from nait_store.selection.trainers.export import TrainerExport
    from nait_store.selection.trainers.layouts import Layout, Trainer
    from nait_store.selection.trainers.provenance import ProfileOrigin, SelectionOrigin
    from nait_store.store.facade import Store


def export_selection(
    store: Store,
    saved: SavedSelection,
    out: str,
    *,
    to: str,
    layout: str | None,
    name: str | None,
    shuffle: int | None,
    map: Mapping[str, str] | None,  # noqa: A002  (the option's name on the command line and in Python)
    on_error: str,
    overwrite: bool,
) -> TrainerExport:
    """Write a saved selection; see :meth:`~nait_store.store.selections.Selections.export`."""
    from nait_store.selection.trainers.export import TrainerRequest, export_to_trainer
    from nait_store.selection.trainers.layouts import AS_THEY_ARE

    if on_error not in ("stop", "skip"):
        raise InvalidInputError(f"{on_error!r} is no way to treat a misfit", next_step="use 'stop' or 'skip'")
    trainer, chosen = _trainer(to), _layout(layout)
    for gone in (error for parent, error in missing_parents(store, saved).items() if parent.kind is Kind.SET):
        raise NotFoundError(f"{saved.reference} cannot be exported: {gone.what}", next_step=gone.next_step)
    version = store.sets.open(saved.record.set_ref)
    request = TrainerRequest(
        trainer,
        out,
        name or f"{saved.record.name}-{saved.number}",
        layout=chosen,
        shuffle=shuffle,
        skip=on_error == "skip",
        field_map=_field_map(store, version, map) if chosen is not None or trainer not in AS_THEY_ARE else None,
        overwrite=overwrite,
    )
    return export_to_trainer(store.location, version, saved.selection(), _origin(store, saved, version), request)


def _trainer(text: str) -> Trainer:
    from nait_store.selection.trainers.layouts import Trainer

    try:
        return Trainer(text)
    except ValueError as error:
        raise InvalidInputError(f"nothing is exported to {text!r}", next_step=did_you_mean(text, Trainer)) from error


def _layout(text: str | None) -> Layout | None:
    from nait_store.selection.trainers.layouts import Layout

    if text is None:
        return None
    try:
        return Layout(text)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is not a layout", next_step=did_you_mean(text, Layout)) from error


def _field_map(store: Store, version: SetVersion, asked: Mapping[str, str] | None) -> FieldMap | None:
    """The map that was asked for, else the one that the set's samples were ingested with."""
    from nait_store.capture.conversations import FieldMap

    if asked is not None:
        return FieldMap.of(asked) if asked else None
    ingests = [
        recorded_ingest(store.location, version.name, ingest_id)
        for ingest_id in store.location.names(layout.ingest_folder(version.name))
    ]
    choices = [one.plan.choices for one in ingests if one is not None]
    maps = {tuple(sorted(one.field_map.items())) for one in choices if one is not None}
    if len(maps) > 1:
        spelled = " and ".join(sorted(",".join(f"{key}={value}" for key, value in one) or "none" for one in maps))
        raise InvalidInputError(
            f"the samples of {version.name} were ingested with different --map: {spelled}",
            next_step="say with --map how to read those that were selected, or select of one kind with --where",
        )
    columns = dict(maps.pop()) if maps else {}
    return FieldMap.of(columns) if columns else None


def _origin(store: Store, saved: SavedSelection, version: SetVersion) -> SelectionOrigin:
    from nait_store.selection.requests import SelectionRequest
    from nait_store.selection.trainers.provenance import SelectionOrigin

    record, manifest = saved.record, saved.manifest
    document = layout.version_document(Kind.SET, version.name, version.number)
    references = ("set_ref", "profile_ref", "profiles")
    asked = SelectionRequest.from_record(record).recorded().items()
    return SelectionOrigin(
        reference=saved.reference,
        record_sha256=saved.record_sha256,
        set_ref=record.set_ref,
        set_sha256=sha256_bytes(store.location.read_bytes(document)),
        capture_id=version.record.capture_id,
        profiles=tuple(_profile_origin(store, one) for one in record.profiles_with_weights),
        request={name: value for name, value in asked if name not in references},
        query=record.query,
        n_candidates=record.n_candidates,
        n_selected=record.n_selected,
        message=manifest.message,
        author=manifest.provenance.author,
        saved_at=manifest.provenance.created_at.isoformat(),
    )


def _profile_origin(store: Store, profile: ProfileWeight) -> ProfileOrigin:
    from nait_store.selection.trainers.provenance import ProfileOrigin

    reference = parse_reference(profile.reference, Kind.PROFILE)
    try:
        opened = store.profiles.registry.version(reference.name, number_of(reference))
    except NotFoundError:  # gc has taken it; the selection has its scores
        return ProfileOrigin(profile.reference, profile.weight, None, None)
    digests = opened.manifest.record_sha256, opened.record.directions_sha256
    return ProfileOrigin(profile.reference, profile.weight, *digests)
