"""Verification of the journals that ingests and other jobs keep in a set's folder."""

from __future__ import annotations

from nait_store.refs import Kind
from nait_store.schemas.activation_set import FlushRecord, Heartbeat, IngestOutcome, IngestPlan, SetManifest
from nait_store.storage import layout
from nait_store.storage.heartbeat import HEARTBEAT_FILE, is_alive
from nait_store.storage.verify import Inspection
from nait_store.storage.version_checks import InspectedVersions


def inspect_ingests(
    inspection: Inspection, set_name: str, versions: InspectedVersions[SetManifest]
) -> dict[str, FlushRecord]:
    """Check every ingest's journal.

    Parameters
    ----------
    inspection
        What it is part of.
    set_name
        The set.
    versions
        Of the set.

    Returns
    -------
    dict
        Segment id → flush record, of ingests that have no outcome: their segments must be whole.
    """
    waiting: dict[str, FlushRecord] = {}
    for ingest_id in inspection.names(layout.ingest_folder(set_name)):
        folder = layout.ingest_folder(set_name, ingest_id)
        names = inspection.names(folder)
        if "plan.json" in names:
            _check_plan(inspection, f"{folder}/plan.json", ingest_id, set_name)
        _check_heartbeat(inspection, folder)
        flushed = _flush_records(inspection, folder, ingest_id)
        if flushed and "plan.json" not in names and not inspection.exists(f"{folder}/plan.json"):
            inspection.error(f"{folder}/plan.json", "it is missing")
        outcome = None
        if "outcome.json" in names:
            outcome = inspection.document(f"{folder}/outcome.json", IngestOutcome)
        if outcome is not None:
            _check_outcome(inspection, folder, ingest_id, outcome, versions)
        elif "outcome.json" not in names:
            waiting.update(flushed)
    return waiting


def inspect_jobs(inspection: Inspection, set_name: str) -> None:
    """Check the heartbeats of compactions, purges and repairs, and mention those that died."""
    for job_id in inspection.names(layout.job_folder(set_name)):
        folder = layout.job_folder(set_name, job_id)
        _check_heartbeat(inspection, folder)
        if not is_alive(inspection.location, folder) and inspection.location.exists(folder):
            inspection.info(folder, "left by a job that was killed; gc removes it")


def _check_plan(inspection: Inspection, path: str, ingest_id: str, set_name: str) -> None:
    plan = inspection.document(path, IngestPlan) if inspection.exists(path) else None
    if plan is not None and (plan.ingest_id, plan.set_name) != (ingest_id, set_name):
        inspection.error(path, f"it is the plan of ingest {plan.ingest_id} into {plan.set_name!r}", "ingest_id")


def _check_heartbeat(inspection: Inspection, folder: str) -> None:
    path = f"{folder}/{HEARTBEAT_FILE}"
    if inspection.is_file(path):
        for _ in inspection.documents([path], Heartbeat):  # being damaged is all that can be wrong with it
            pass


def _flush_records(inspection: Inspection, folder: str, ingest_id: str) -> dict[str, FlushRecord]:
    flushed = f"{folder}/flushed"
    paths = {f"{flushed}/{name}": name.removesuffix(".json") for name in inspection.names(flushed)}
    records = {}
    for path, record in inspection.documents(paths, FlushRecord):
        if record is None:
            continue
        if (record.segment_id, record.ingest_id) != (paths[path], ingest_id):
            inspection.error(
                path, f"it is about segment {record.segment_id} of ingest {record.ingest_id}", "segment_id"
            )
        else:
            records[record.segment_id] = record
    return records


def _check_outcome(
    inspection: Inspection,
    folder: str,
    ingest_id: str,
    outcome: IngestOutcome,
    versions: InspectedVersions[SetManifest],
) -> None:
    path = f"{folder}/outcome.json"
    if outcome.ingest_id != ingest_id:
        inspection.error(path, f"it is the outcome of ingest {outcome.ingest_id}", "ingest_id")
    if outcome.version is not None and not versions.knows(outcome.version):
        missing = layout.version_document(Kind.SET, versions.name, outcome.version)
        if not inspection.exists(missing):
            inspection.error(missing, f"it is missing: ingest {ingest_id} committed it")
    if outcome.rejects is not None:
        rejects = outcome.rejects
        inspection.expect(
            f"{folder}/{rejects.path}", rejects.sha256, rejects.size_bytes, place="what the ingest left out"
        )
