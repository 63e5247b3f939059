"""How the history of sets looks to people: values in, lines and tables out."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nait_store.cli.console import Console, as_json
from nait_store.cli.quantities import count, numbers
from nait_store.cli.tables import Table, cell, pairs
from nait_store.cli.views import Block
from nait_store.refs import COMMANDS

if TYPE_CHECKING:
    from nait_store.store.kept_versions import DeletedVersions, Deletion, LabelSummary
    from nait_store.store.profile_versions import ProfileDiff, ProfileVersion
    from nait_store.store.set_history import DeletedSamples, RestoredVersion, SetDiff, VersionSummary
    from nait_store.store.version_notes import NoteSummary

_SHOWN_IDS = 3
_TIME = "%Y-%m-%d %H:%M:%S"


def set_history(versions: Sequence[VersionSummary], notes: Sequence[NoteSummary]) -> Iterator[Block]:
    """One line a version, without columns that would be empty; then one line a text of a note."""
    rows = [
        {
            "version": one.reference,
            "samples": one.n_samples,
            "change": None if one.change is None else f"{one.change:+,}",
            "by": one.operation,
            "what": one.what,
            "labels": _labels(one),
            "note": one.note,
            "time (UTC)": None if one.created_at is None else f"{one.created_at:{_TIME}}",
            "author": one.author,
            "message": one.message,
            "deleted": _deletion(one.deleted),
        }
        for one in versions
        if not one.collected
    ]
    yield from _filled(rows, optional=("what", "labels", "note", "deleted"))
    yield from _collected(versions)
    yield from note_texts(notes)


def profile_history(
    versions: Sequence[ProfileVersion], moves: Sequence[LabelSummary], notes: Sequence[NoteSummary]
) -> Iterator[Block]:
    """One line a version, then one line a move of an alias or tag, then one line a text of a note."""
    rows = [
        {
            "version": one.reference,
            "what": one.what,
            "labels": _labels(one),
            "built (UTC)": None if one.created_at is None else f"{one.created_at:{_TIME}}",
            "author": one.author,
            "message": one.message,
            "deleted": _deletion(one.deleted),
        }
        for one in versions
        if not one.collected
    ]
    yield from _filled(rows, optional=("labels", "message", "deleted"))
    yield from _collected(versions)
    if moves:
        yield ""
        yield label_moves(moves)
    yield from note_texts(notes)


def profile_diff(diff: ProfileDiff) -> Iterator[Block]:
    """Samples, settings, and the cosine of each layer."""
    if diff.n_kept is not None:
        yield (
            f"{diff.first} → {diff.second}: {diff.n_added:,} in-domain samples added, {diff.n_removed:,} removed, "
            f"{diff.n_kept:,} the same"
        )
    else:
        yield f"{diff.first} → {diff.second}: in-domain samples unknown: {diff.unknown}"
    found = [
        ("added", first_ids(diff.added, diff.n_added or 0)),
        ("removed", first_ids(diff.removed, diff.n_removed or 0)),
        ("layers", _signed(_ranges(diff.layers_added), _ranges(diff.layers_removed))),
        *((name, f"{_known(before)} → {_known(after)}") for name, (before, after) in diff.settings.items()),
    ]
    if any(value for _, value in found):
        yield pairs(found)
    if diff.overlap is not None:
        overlap = diff.overlap
        yield (
            f"{overlap.n_common:,} of the best {overlap.n_best:,} samples of {overlap.activation_set} are the same "
            f"({100 * overlap.share:.1f} %)"
        )
    if diff.cosines:
        yield ""
        yield Table(("layer", "cosine"), [(layer, f"{cosine:.4f}") for layer, cosine in diff.cosines.items()])
    elif not diff.comparable:
        yield "they measure different things: their directions cannot be compared"


def _known(value: Any) -> str:
    return "none" if value is None else cell(value)


def _labels(one: VersionSummary | ProfileVersion) -> str:
    return ", ".join([*(f"tag {tag}" for tag in one.tags), *(f"alias {alias}" for alias in one.aliases)])


def _filled(rows: Sequence[dict[str, Any]], *, optional: Sequence[str]) -> Iterator[Table]:
    """A table without those optional columns that would be empty."""
    if rows:
        columns = [name for name in rows[0] if name not in optional or any(row[name] for row in rows)]
        yield Table(columns, [[row[name] for name in columns] for row in rows])


def _collected(versions: Sequence[VersionSummary | ProfileVersion]) -> Iterator[str]:
    collected = [one.number for one in versions if one.collected]
    if collected:
        yield f"gc has taken {'version' if len(collected) == 1 else 'versions'} {numbers(tuple(collected))}"


def set_diff(diff: SetDiff) -> Iterator[Block]:
    """Counts, the first few ids, and what else differs."""
    if diff.same_samples:
        yield f"{diff.first} and {diff.second} have the same {count(diff.n_kept, 'sample')}"
    else:
        yield (
            f"{diff.first} → {diff.second}: {diff.n_added:,} added, {diff.n_removed:,} removed, "
            f"{diff.n_changed:,} changed, {diff.n_kept:,} the same"
        )
    found = [
        ("added", first_ids(diff.added, diff.n_added)),
        ("removed", first_ids(diff.removed, diff.n_removed)),
        ("changed", first_ids(diff.changed, diff.n_changed)),
        ("features", _signed(diff.features_added, diff.features_removed)),
        ("layers", _signed(_ranges(diff.layers_added), _ranges(diff.layers_removed))),
        ("segments", _signed(_number(diff.n_segments_added), _number(diff.n_segments_removed))),
        ("capture", None if diff.same_capture else "differs: see 'nait-store sets show' of both"),
    ]
    if any(value for _, value in found):
        yield pairs(found)


def diff_value(diff: SetDiff) -> dict[str, Any]:
    """JSON form, without the places of the samples."""
    fields = (field.name for field in dataclasses.fields(diff) if field.name != "samples")
    return {name: as_json(getattr(diff, name)) for name in fields} | {"same_samples": diff.same_samples}


def diff_ids(diff: SetDiff, *, as_json: bool) -> Iterator[str]:
    """Every differing sample as a line of CSV under a header, or as a JSON line."""
    if as_json:
        for change, sample_id in diff.ids():
            yield json.dumps({"change": change.value, "sample_id": sample_id}, ensure_ascii=False)
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer)  # its own line end: what occurs in that is quoted in values
    yield "change,sample_id"
    for change, sample_id in diff.ids():
        writer.writerow((change.value, sample_id))
        yield buffer.getvalue().removesuffix("\r\n")
        buffer.seek(0)
        buffer.truncate()


def deleted_samples(report: DeletedSamples, console: Console) -> list[str]:
    """``pool@3: 12 samples deleted, 188 left``."""
    missing = f"; {report.n_missing:,} of the ids are not there" if report.n_missing else ""
    if not report.n_deleted:
        return [f"{report.set_ref} has none of these samples: nothing was deleted{missing}"]
    shown = first_ids(report.sample_ids, report.n_deleted)
    if report.dry_run:
        lines = [
            f"{count(report.n_deleted, 'sample')} of {report.set_ref} would be deleted, {report.n_left:,} left"
            f"{missing}",
            f"  {shown}",
        ]
        if not report.n_left:
            lines.append("no sample would be left: that needs --all")
        return lines
    return [
        f"{report.set_ref}: {count(report.n_deleted, 'sample')} deleted, {report.n_left:,} left{missing}",
        console.hint(f"sets diff {report.from_ref} {report.set_ref}"),
    ]


def restored_version(report: RestoredVersion) -> list[str]:
    """What a restore made."""
    if not report.created:
        return [f"{report.set_ref} has the samples of {report.restored} already: nothing was done"]
    return [f"{report.set_ref}: {count(report.n_samples, 'sample')}, as in {report.restored}"]


def deleted_versions(report: DeletedVersions) -> list[str]:
    """What was put out of sight, and the way back."""
    name = report.deleted[0].partition("@")[0]
    shown = ", ".join(report.deleted) if len(report.deleted) <= 8 else f"{len(report.deleted):,} versions of {name}"
    back = report.deleted[0] if len(report.deleted) == 1 else name
    left = f"{len(report.left):,} left" if report.left else "none is left"
    return [f"deleted {shown}; {left}", f"until gc takes it: nait-store {COMMANDS[report.kind]} undelete {back}"]


def undeleted_versions(asked: str, references: Sequence[str]) -> list[str]:
    """What came back."""
    if not references:
        return [f"{asked} is not deleted: nothing was done"]
    return [f"{', '.join(references)} {'is' if len(references) == 1 else 'are'} back"]


def label(summary: LabelSummary) -> list[str]:
    """Where a label is now."""
    if summary.version is None:
        return [f"{summary.kind} {summary.label} was taken away"]
    name = summary.version.partition("@")[0]
    lines = [f"{name}@{summary.label} is {summary.version}"]
    if summary.kind == "tag":
        lines.append(f"it keeps {summary.version} from gc and deletion")
    return lines


def labels(summaries: Sequence[LabelSummary], whose: str, hint: str) -> Iterator[Block]:
    """One line a move, the present one of each label first; ``hint`` says how to make one where there is none."""
    if not summaries:
        yield f"{whose} has no alias and no tag"
        yield hint
        return
    yield label_moves(summaries)


def label_moves(summaries: Sequence[LabelSummary]) -> Table:
    """One line a move, the present one of each label first."""
    rows = []
    for one in summaries:
        for place, move in enumerate(reversed(one.moves)):
            state = ("now" if move.version else "taken away") if place == 0 else ("before" if move.version else "away")
            rows.append(
                (one.label, one.kind, move.version or "", state, f"{move.moved_at:{_TIME}}", move.author, move.reason)
            )
    return Table(("label", "kind", "version", "state", "time (UTC)", "author", "reason"), rows)


def note(summary: NoteSummary) -> list[str]:
    """What a note says now."""
    if not summary.text:
        return [f"the note on {summary.reference} was taken away"]
    return [f"{summary.reference}: {cell(summary.text)}"]


def note_texts(notes: Sequence[NoteSummary]) -> Iterator[Block]:
    """One line a text, the present one of each note first; nothing where there never was one."""
    rows = []
    for one in notes:
        for place, text in enumerate(reversed(one.texts)):
            state = ("now" if text.text else "taken away") if place == 0 else ("before" if text.text else "away")
            rows.append((one.reference, text.text, state, f"{text.written_at:{_TIME}}", text.author))
    if rows:
        yield ""
        yield Table(("version", "note", "state", "time (UTC)", "author"), rows)


def _deletion(deleted: Deletion | None) -> str:
    if deleted is None:
        return ""
    why = f": {deleted.reason}" if deleted.reason else ""
    return f"{deleted.deleted_at:{_TIME}} by {deleted.author}{why}"


def first_ids(ids: Sequence[str], n: int) -> str:
    """The first few ids, and of how many; empty for none."""
    shown = ", ".join(map(cell, ids[:_SHOWN_IDS]))
    return f"{shown}, … ({n:,} in all)" if n > _SHOWN_IDS else shown


def _signed(added: Sequence[str], removed: Sequence[str]) -> str:
    return ", ".join([*(f"+{one}" for one in added), *(f"-{one}" for one in removed)])


def _ranges(layers: tuple[int, ...]) -> list[str]:
    return [numbers(layers)] if layers else []


def _number(n: int) -> list[str]:
    return [f"{n:,}"] if n else []
