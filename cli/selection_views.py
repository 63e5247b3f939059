"""How saved selections look to people: values in, lines and tables out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nait_store.cli.console import Console, as_json
from nait_store.cli.history_views import first_ids
from nait_store.cli.quantities import count
from nait_store.cli.tables import Table, cell, pairs
from nait_store.cli.views import Block, how_chosen, spelled_dropped

if TYPE_CHECKING:
    from nait_store.selection.trainers.export import TrainerExport
    from nait_store.store.selection_details import SampleLengths, SelectionDetails
    from nait_store.store.selection_diff import SelectionDiff, SelectionPart
    from nait_store.store.selection_listing import SelectionSummary
    from nait_store.store.selection_recomputation import SelectionVerification

_SOURCES = 8
_TEXT_CHARACTERS = 90
_SHOWN_LEFT_OUT = 3
_TIME = "%Y-%m-%d %H:%M:%S"


def selection_list(summaries: Sequence[SelectionSummary], console: Console) -> Iterator[Block]:
    """One line a selection."""
    if not summaries:
        yield "no selection is saved yet"
        yield console.hint("select --from SET --profile PROFILE --save NAME")
        return
    optional = {
        "labels": [", ".join([*one.aliases, *one.tags]) for one in summaries],
        "message": [one.message for one in summaries],
        "note": [one.note for one in summaries],
    }
    shown = {name: values for name, values in optional.items() if any(values)}
    rows = [
        (
            one.reference,
            one.n_selected,
            one.n_candidates,
            one.set_ref,
            _how(one),
            f"{one.created_at:{_TIME}}",
            one.author,
            *(values[i] for values in shown.values()),
        )
        for i, one in enumerate(summaries)
    ]
    yield Table(("selection", "samples", "of", "set", "chosen", "saved (UTC)", "author", *shown), rows)


def selection_details(details: SelectionDetails) -> Iterator[Block]:
    """Everything about one version of a selection."""
    summary = details.summary
    versions = details.versions
    purged = f" ({details.n_purged:,} more were purged)" if details.n_purged else ""
    scores = details.score_range
    yield pairs(
        [
            ("selection", summary.reference),
            ("versions", f"{len(versions)} ({versions[0]}–{versions[-1]})" if len(versions) > 1 else "1"),
            ("samples", f"{summary.n_selected:,} of {count(summary.n_candidates, 'candidate')}{purged}"),
            ("from", summary.set_ref),
            ("where", summary.where),
            ("chosen", f"{_how(summary)}, top {summary.top}"),
            *((name.replace("_", " "), _control(value)) for name, value in details.controls.items()),
            ("dropped", spelled_dropped(details.dropped) if details.dropped else None),
            ("scores", f"{scores[0]:.4g} … {scores[1]:.4g}" if scores else None),
            ("length", _lengths(details.lengths)),
            ("of the set", _lengths(details.lengths_of_set)),
            ("labels", ", ".join([*(f"tag {tag}" for tag in summary.tags), *(f"alias {a}" for a in summary.aliases)])),
            ("saved", f"{summary.created_at:{_TIME}} UTC by {summary.author}"),
            ("message", summary.message),
            ("note", summary.note),
        ]
    )
    yield ""
    yield details.query
    if details.sources:
        yield ""
        yield from _sources(details)
    if details.first:
        yield ""
        rows = [(one.rank, one.sample_id, one.score, _cut(one.text)) for one in details.first]
        yield Table(("rank", "sample_id", "score", "record"), rows)
        if summary.n_selected > len(rows):
            yield f"… and {summary.n_selected - len(rows):,} more"


def selection_diff(diff: SelectionDiff) -> Iterator[Block]:
    """What both have and what one has alone, how it scores and how long it is, and how both were made."""
    yield (
        f"{diff.first} → {diff.second}: {count(diff.both.n_samples, 'sample')} in both "
        f"({100 * diff.overlap:.1f} % of those of either), {diff.only_first.n_samples:,} only in {diff.first}, "
        f"{diff.only_second.n_samples:,} only in {diff.second}"
    )
    largest = diff.largest_score_difference
    found = [
        ("moved", f"{diff.n_moved:,} of those in both have another rank" if diff.n_moved else None),
        ("scores", f"largest difference of those in both {largest:.4g}" if largest else None),
        (f"only in {diff.first}", first_ids(diff.first_ids, diff.only_first.n_samples)),
        (f"only in {diff.second}", first_ids(diff.second_ids, diff.only_second.n_samples)),
        *((name, f"{_known(before)} → {_known(after)}") for name, (before, after) in diff.settings.items()),
    ]
    if any(value for _, value in found):
        yield pairs(found)
    parts = (("in both", diff.both), (f"only in {diff.first}", diff.only_first))
    yield ""
    rows = [_part(name, part) for name, part in (*parts, (f"only in {diff.second}", diff.only_second))]
    yield Table(("", "samples", f"mean score in {diff.first}", f"in {diff.second}", "mean tokens"), rows)


def diff_value(diff: SelectionDiff, url: str | None) -> dict[str, Any]:
    """JSON form; the rows stand in the file alone."""
    fields = (field.name for field in dataclasses.fields(diff) if field.name != "rows")
    return {name: as_json(getattr(diff, name)) for name in fields} | {"overlap": diff.overlap, "written_to": url}


def verification(report: SelectionVerification) -> Iterator[Block]:
    """A line for each comparison, and the verdict."""
    rows = [(check.subject, check.what, "same" if check.ok else "DIFFERS", check.detail) for check in report.checks]
    if rows:
        yield Table(("of", "what", "verdict", "found"), rows)
        yield ""
    yield from report.notes
    if not report.n_compared:
        yield f"{report.reference} was not made again: {_why_not(report)}"
    elif report.identical:
        yield f"{report.reference} was made again: {count(report.n_compared, 'sample')}, identical in order and score"
    elif report.ok:
        yield f"{report.reference} was made again: {count(report.n_compared, 'sample')}, the same within the tolerance"
    else:
        yield f"{report.reference} is not what its record gives"


def export_report(report: TrainerExport, seed: int | None) -> list[str]:
    """What was written where, and how the trainer is told of it."""
    how = "records as they are" if report.layout is None else report.layout.value
    order = "by rank" if seed is None else f"shuffled by seed {seed}"
    what = "ids" if report.trainer.value == "ids" else how
    lines = [f"{count(report.n_samples, 'sample')} written to {report.data.url} ({what}, {order})"]
    if report.left_out:
        named = "; ".join(f"{cell(one.sample_id)}: {one.reason}" for one in report.left_out[:_SHOWN_LEFT_OUT])
        more = "; …" if len(report.left_out) > _SHOWN_LEFT_OUT else ""
        lines.append(f"{count(len(report.left_out), 'sample')} left out: {named}{more}")
    lines.append(f"where they come from: {report.provenance}")
    folder = report.data.url.rpartition("/")[0]
    match report.trainer.value:
        case "llama-factory":
            lines += [
                f"entry {report.name!r} of {report.configuration}; in the training run:",
                f"  dataset_dir: {folder}",
                f"  dataset: {report.name}",
            ]
        case "axolotl":
            lines.append(f"datasets of the training run: {report.configuration}")
        case "trl":
            lines.append(f'in Python: load_dataset("json", data_files={report.data.url!r}, split="train")')
        case "hf-datasets":
            lines.append(f'in Python: load_dataset({folder.rpartition("/")[0]!r}, split="train")')
    return lines


def _why_not(report: SelectionVerification) -> str:
    return "it has no sample left" if report.ok else "what it was made from is gone"


def _how(summary: SelectionSummary) -> str:
    return how_chosen(summary.strategy, summary.profile_ref or "", summary.seed)


def _sources(details: SelectionDetails) -> Iterator[Block]:
    total = sum(details.sources.values())
    items = list(details.sources.items())
    yield Table(("source", "samples", "share"), [(name, n, f"{100 * n / total:.1f} %") for name, n in items[:_SOURCES]])
    if len(items) > _SOURCES:
        yield f"… and {count(len(items) - _SOURCES, 'more source')}"


def _lengths(lengths: SampleLengths | None) -> str | None:
    if lengths is None:
        return None
    return f"{lengths.mean:.1f} tokens on average, median {lengths.median:.4g}, {lengths.least:,} to {lengths.most:,}"


def _part(name: str, part: SelectionPart) -> tuple[str, int, float | None, float | None, str | None]:
    tokens = None if part.mean_tokens is None else f"{part.mean_tokens:.1f}"
    return (name, part.n_samples, part.mean_score_first, part.mean_score_second, tokens)


def _control(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else cell(value)


def _known(value: Any) -> str:
    return "none" if value is None else cell(value)


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARACTERS else text[: _TEXT_CHARACTERS - 1] + "…"
