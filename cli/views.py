"""How results look to people: values in, lines and tables out. No logic, no I/O but reading previews."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nait_store.cli.console import Console, as_json
from nait_store.cli.quantities import count, duration, numbers, size
from nait_store.cli.tables import Table, pairs

if TYPE_CHECKING:
    from nait_store.ingest.requests import IngestEstimate, IngestReport
    from nait_store.registry.compatibility_report import CompatibilityReport
    from nait_store.registry.profiles import Profile
    from nait_store.schemas.selection import DroppedDuplicates
    from nait_store.scoring.completion import ScoreWork
    from nait_store.selection.choosing import Selection
    from nait_store.selection.export import ExportReport
    from nait_store.selection.requests import SelectionRequest
    from nait_store.selection.saved import SavedSelection
    from nait_store.store.doctor import DoctorReport
    from nait_store.store.facade import Store
    from nait_store.store.integrity import VerifyReport
    from nait_store.store.inventory import SetDetails, SetSummary
    from nait_store.store.profile_listing import ProfileSummary
    from nait_store.store.version_notes import NoteSummary

Block = str | Table
_PREVIEW_ROWS = 5
_PREVIEW_CHARACTERS = 90
_NAMED_PROFILES = 4


def as_mapping(value: Any) -> dict[str, Any]:
    """Plain JSON object of a dataclass."""
    return dict(as_json(value))


def expected_size(estimate: IngestEstimate) -> str:
    """``6,000 records, 41 MB expected (6.9 kB a sample), 79 GB free``."""
    parts = []
    if estimate.n_records is not None:
        parts.append(count(estimate.n_records, "record"))
    each = f"{size(estimate.sample_bytes)} a sample"
    if estimate.expected_bytes is None:
        parts.append(each)
    else:
        parts.append(f"{size(estimate.expected_bytes)} expected ({each})")
    if estimate.free_bytes is not None:
        parts.append(f"{size(estimate.free_bytes)} free")
    return ", ".join(parts)


def ingest_report(report: IngestReport, console: Console) -> list[str]:
    """``pool@1: 6,000 samples added (12 known, 3 rejected → rejects.jsonl), 44 MB, 12.3 s``."""
    asides = []
    if report.n_known:
        asides.append(f"{report.n_known:,} known")
    if report.n_duplicates:
        asides.append(count(report.n_duplicates, "duplicate"))
    if report.resumed_samples:
        asides.append(f"{report.resumed_samples:,} kept from an interrupted ingest")
    if report.n_rejected:
        where = f" → {report.rejects_path}" if report.rejects_path else ""
        asides.append(f"{report.n_rejected:,} rejected{where}")
    if report.n_truncated:
        asides.append(f"{report.n_truncated:,} truncated")
    aside = f" ({', '.join(asides)})" if asides else ""
    lines = [
        f"{report.set_ref}: {count(report.n_added, 'sample')} added{aside}, "
        f"{size(report.bytes_written)}, {duration(report.elapsed_seconds)}"
    ]
    if report.n_added:
        usage = report.usage
        memory = f", peak memory {size(usage.peak_memory_bytes)}" if usage.peak_memory_bytes else ""
        lines.append(f"  {usage.layout} batches of {usage.token_budget:,} tokens on {usage.device}{memory}")
        lines += [
            f"  {share.device}: {count(share.n_samples, 'sample')}, {count(share.n_tokens, 'token')}"
            + (f", peak memory {size(share.peak_memory_bytes)}" if share.peak_memory_bytes else "")
            for share in usage.devices
        ]
    if report.scored_with:
        let_go = "" if report.keeps_features else "; activations are not kept"
        lines.append(f"  scored with {_some(report.scored_with)}{let_go}")
    lines += [f"  rejected {r.where}: {r.reason}" for r in report.rejected[:3]]
    if report.n_added:
        set_name = report.set_ref.partition("@")[0]
        lines.append(console.hint(f"profile build NAME --from {set_name}"))
    return lines


def set_list(summaries: Sequence[SetSummary], console: Console) -> Iterator[Block]:
    """One line a set."""
    if not summaries:
        yield "no activation set yet"
        yield console.hint("ingest FILE… --set NAME --model MODEL")
        return
    rows = [
        (s.reference, s.n_samples, ",".join(s.features), s.n_layers, s.n_neurons, ",".join(s.dtypes),
         size(s.size_bytes), s.hook_point, s.model)
        for s in summaries
    ]  # fmt: skip
    yield Table(("set", "samples", "features", "layers", "neurons", "dtype", "size", "hook", "model"), rows)


def set_details(details: SetDetails) -> Iterator[Block]:
    """Everything about one version of a set."""
    summary = details.summary
    versions = f"{len(details.versions)} (1–{details.versions[-1]})" if len(details.versions) > 1 else "1"
    hidden = details.n_rows - summary.n_samples
    where = summary.hook_point + _aside(details.hook_path)
    yield pairs(
        [
            ("set", summary.reference),
            ("versions", versions),
            ("samples", f"{summary.n_samples:,}" + (f" (and {hidden:,} hidden repetitions)" if hidden else "")),
            ("segments", f"{details.n_segments:,}, {size(summary.size_bytes)}"),
            ("tokens", f"{details.n_tokens:,} ({details.n_truncated:,} samples truncated)"),
            ("features", ", ".join(summary.features)),
            ("layers", f"{numbers(details.layers)} ({len(details.layers)})"),
            ("neurons (J)", None if details.projections else f"{summary.n_neurons:,} at {where}"),
            ("projected on", f"{', '.join(details.projections)}, at {where}" if details.projections else None),
            ("experts", details.moe_layout),
            ("stored as", ", ".join(summary.dtypes)),
            ("model", f"{summary.model} ({details.model_type})"),
            ("computed in", f"{', '.join(details.compute_dtypes)} on {', '.join(details.devices)}"),
            ("template", f"{details.template}, span {details.span}, edges {details.span_edges}"),
            ("max length", f"{', '.join(map(str, details.max_length_tokens))} tokens"),
            ("capture id", details.capture_id),
            ("fields", ", ".join(f"{name} {kind}" for name, kind in details.fields.items()) or "none"),
            ("committed", f"{summary.created_at:%Y-%m-%d %H:%M:%S} UTC by {details.author}"),
            ("message", details.message),
            ("note", details.note),
        ]
    )


def built_profile(profile: Profile, created: bool, console: Console) -> list[str]:
    """What a build made."""
    record = profile.record
    source = record.source
    if created:
        made_from = record.made_from
        if source is not None:
            made_from = f"{count(source.n_samples, 'sample')} of {source.set_name}@{source.version}"
        first = (
            f"{profile.reference}: {count(len(record.layers), 'direction')} of {record.n_neurons:,} neurons from "
            f"{made_from} (recipe {record.recipe.in_words})"
        )
    elif source is not None:
        first = f"{profile.reference} is this very recipe on these very samples already: nothing was computed"
    else:
        first = f"{profile.reference} has these very directions already: nothing was done"
    return [first, console.hint(f"select --from SET --profile {record.name} --top 10% --out FILE.jsonl")]


def profile_list(profiles: Sequence[ProfileSummary], hint: str, nothing: str = "no profile yet") -> Iterator[Block]:
    """One line a profile; ``hint`` says what to do where there is none."""
    if not profiles:
        yield nothing
        yield hint
        return
    labelled = any(profile.aliases or profile.tags for profile in profiles)
    noted = any(profile.note for profile in profiles)
    recipes = {id(profile.recipe): profile.recipe for profile in profiles}  # thousands share a handful
    in_words = {key: recipe.in_words for key, recipe in recipes.items()}
    rows = [
        (
            profile.reference,
            *([", ".join([*profile.aliases, *profile.tags])] if labelled else []),
            profile.source or profile.made_from,
            profile.n_samples,
            in_words[id(profile.recipe)],
            profile.model,
            profile.n_layers,
            profile.n_warnings,
            profile.created_at.isoformat(" ", "seconds")[:19],  # UTC; of thousands, five times as quick as a format
            *([profile.note] if noted else []),
        )
        for profile in profiles
    ]
    labels, notes = ["labels"] if labelled else [], ["note"] if noted else []
    columns = ("profile", *labels, "from", "samples", "recipe", "model", "layers", "warnings", "built (UTC)", *notes)
    yield Table(columns, rows)


def compatibility(report: CompatibilityReport) -> Iterator[Block]:
    """The verdict, each difference, and what to do."""
    verdict = {
        "refuse": "does not apply to",
        "warn": "applies to, with reservations,",
        "ignore": "applies to",
        None: "applies to",
    }[report.severity]
    yield f"profile {report.profile} {verdict} set {report.set_ref}"
    if report.differences:
        yield ""
        effects = {"refuse": "forbids it", "warn": "shifts scores", "ignore": "none"}
        rows = [(d.field, d.profile_value, d.set_value, effects[d.severity]) for d in report.differences]
        yield Table(("differs in", "profile", "set", "effect"), rows)
    advice = dict.fromkeys(d.advice for d in report.differences if d.advice)
    if advice:
        yield ""
        yield from (f"→ {one}" for one in advice)
    yield ""
    yield f"the same: {', '.join(report.same)}"


def profile_details(profile: Profile, note: NoteSummary | None) -> Iterator[Block]:
    """Everything about one version of a profile."""
    record = profile.record
    source, background = record.source, record.background
    yield pairs(
        [
            ("profile", profile.reference),
            ("recipe", record.recipe.in_words),
            ("from", record.made_from if source is None else _sample_source(source)),
            ("which was", None if record.imported is None else record.imported.told),
            ("against", _sample_source(background) if background is not None else None),
            ("layers", f"{numbers(record.layers)} ({len(record.layers)}), {record.n_neurons:,} neurons each"),
            ("hook", record.identity.hook_point.value + _aside(record.identity.hook_path)),
            ("template", f"{record.identity.template.name}, span {record.identity.span.value}"),
            ("capture id", record.capture_id),
            ("computed in", record.settings.compute_dtype),
            ("max length", f"{record.settings.max_length_tokens} tokens"),
            ("directions", record.directions_sha256[:16] + "…"),
            ("built", f"{record.provenance.created_at:%Y-%m-%d %H:%M:%S} UTC by {record.provenance.author}"),
            ("pulled", None if profile.manifest.origin is None else f"from {profile.manifest.origin.in_words}"),
            ("card", record.card),
            ("note", f"{note.text} ({note.author}, {note.written_at:%Y-%m-%d})" if note else None),
        ]
    )


def score_work(set_ref: str, profiles: Sequence[str], work: ScoreWork, console: Console) -> list[str]:
    """What scoring did."""
    if work.n_computed:
        first = (
            f"scored {set_ref} under {count(len(profiles), 'profile')}: "
            f"{count(work.n_computed, 'segment score')} computed, {work.n_cached:,} known, "
            f"{size(work.bytes_read)} read, {duration(work.elapsed_seconds)}"
        )
    else:
        first = f"every score of {set_ref} under {', '.join(profiles)} is known already: nothing was computed"
    return [first, console.hint(f"sql \"SELECT * FROM alignment('{set_ref}', '{profiles[0]}') ORDER BY score DESC\"")]


@dataclass(frozen=True)
class SelectOutcome:
    """A selection and what became of it."""

    selection: Selection
    saved: SavedSelection | None
    exported: ExportReport | None


def selection_value(outcome: SelectOutcome) -> dict[str, Any]:
    """JSON form; the ranks themselves stand in it only where they went nowhere else."""
    selection = outcome.selection
    value: dict[str, Any] = as_json(selection.request.recorded())
    value |= {name: as_json(getattr(selection, name)) for name in ("n_candidates", "query", "warnings", "n_tokens")}
    value["shares"] = [share.model_dump(mode="json") for share in selection.shares]
    value["knee_found"] = None if selection.knee is None else as_json(selection.knee)
    value["dropped"] = [one.model_dump(mode="json") for one in selection.dropped]
    value["n_selected"] = selection.n_selected
    value["score_range"] = as_json(selection.score_range)
    value["saved"] = outcome.saved.reference if outcome.saved else None
    value["exported"] = as_json(outcome.exported)
    if outcome.saved is None and outcome.exported is None:
        value["rows"] = selection.rows.to_pylist()
    return value


def selection_summary(outcome: SelectOutcome) -> list[str]:
    """``562 of 5,620 samples of pool@1 by math@1, scores 0.812 … 0.437 → top.jsonl``."""
    selection = outcome.selection
    request = selection.request
    by = request.in_domain or _ranked_by(request)
    how = how_chosen(selection.strategy.value, by, selection.seed)
    if request.fuse:
        how += f", fused with {', '.join(request.fuse)}"
    if request.min_profiles is not None:
        how += f", in the top {request.effective_top} of at least {request.min_profiles} of them"
    if request.diversity is not None:
        how += f", spread over the best {int(request.among or 0):,} by {request.diversity}"
    text = f"{selection.n_selected:,} of {count(selection.n_candidates, 'candidate')} of {selection.set_ref}, {how}"
    if (scores := selection.score_range) is not None:
        low, high = scores
        first, last = (low, high) if selection.strategy.value == "lowest" else (high, low)
        text += f", scores {first:.4g} … {last:.4g}"
    if selection.n_tokens is not None:
        text += f", {count(selection.n_tokens, 'token')}"
        text += f" of {request.budget_tokens:,}" if request.budget_tokens is not None and not request.per else ""
    lines = [text]
    if selection.knee is not None:
        lines.append(selection.knee.in_words)
    if selection.dropped:
        lines.append(f"left out among the better-ranked: {spelled_dropped(selection.dropped)}")
    for share in selection.shares:
        through = "" if share.n_through is None else f"{share.n_through:,} came in through it, "
        lines.append(f"{share.reference}: {through}{share.n_in_own_top:,} are in its own top {selection.n_selected:,}")
    if outcome.exported is not None:
        report = outcome.exported
        names = [name for name in (report.score_field, report.rank_field) if name is not None]
        added = f", with {' and '.join(names)}" if names else ""
        lines.append(f"written to {report.url} ({report.format.value}{added})")
    if outcome.saved is not None:
        lines.append(f"saved as selection:{outcome.saved.reference}")
    return lines


def spelled_dropped(dropped: Sequence[DroppedDuplicates]) -> str:
    """``12 duplicates (3 exact, 9 near)``."""
    parts = ", ".join(f"{one.n_samples:,} {one.kind}" for one in dropped)
    return f"{count(sum(one.n_samples for one in dropped), 'duplicate')} ({parts})"


def how_chosen(strategy: str, ranked_by: str, seed: int | None) -> str:
    """``highest under math@1``, ``by chance, seed 7``."""
    return {
        "alignment": f"highest under {ranked_by}",
        "lowest": f"lowest under {ranked_by}",
        "random": f"by chance, seed {seed}",
        "length-matched": f"by chance, seed {seed}, with the lengths of the highest under {ranked_by}",
        "embedding": "nearest to the in-domain samples" + (f" of {ranked_by}" if ranked_by else ""),
    }[strategy]


def _ranked_by(request: SelectionRequest) -> str:
    """``math@2``, or ``the union of math@2 and code@1 (2×)``."""
    names = [one.reference + ("" if one.weight == 1 else f" ({one.weight:g}×)") for one in request.profiles]
    if len(names) < 2:
        return "".join(names)
    how = {
        "union": "the union",
        "sum": "the sum",
        "min": "the minimum",
        "rrf": "the reciprocal ranks",
        "norm": "the norm",
    }
    combine = request.effective_combine
    return f"{how[combine.value]} of {', '.join(names[:-1])} and {names[-1]}" if combine is not None else ""


def selection_preview(store: Store, outcome: SelectOutcome, console: Console) -> Iterator[Block]:
    """First rows of a selection that was neither exported nor saved."""
    from nait_store.schemas.samples import beginning
    from nait_store.selection.ranked_records import RankedRecords

    selection = outcome.selection
    rows = selection.rows.slice(0, _PREVIEW_ROWS)
    shown = []
    with RankedRecords(store.location, store.sets.open(selection.set_ref), rows) as records:
        for ranked in records:
            shown.append((ranked.rank, ranked.sample_id, ranked.score, beginning(ranked.record, _PREVIEW_CHARACTERS)))
    yield Table(("rank", "sample_id", "score", "record"), shown)
    if selection.n_selected > len(shown):
        yield f"… and {selection.n_selected - len(shown):,} more"
    if not console.quiet:
        yield from selection_summary(outcome)
        yield "nothing was written: add --out FILE to export, --save NAME to keep it"


def verify_report(report: VerifyReport, *, quiet: bool) -> Iterator[Block]:
    """What verification found."""
    if report.findings:
        rows = [(f.severity.value, f.path, f.place, f.problem) for f in report.findings]
        yield Table(("severity", "path", "place", "finding"), rows)
    looked = ", ".join(
        (
            count(report.n_sets, "set"),
            count(report.n_profiles, "profile"),
            count(report.n_selections, "selection"),
            f"{count(report.n_files, 'file')} {'compared by size' if report.quick else 'hashed'}",
            f"{size(report.n_bytes)} read in {duration(report.elapsed_seconds)}",
        )
    )
    if not report.ok:
        n_files = len({finding.path for finding in report.errors})
        yield f"{count(n_files, 'file')} damaged or lost; looked at {looked}"
        yield "  → 'nait-store repair' drops what is lost and makes caches anew; or put the files back from a copy"
    elif not quiet:
        yield f"the store is sound: {looked}"


def doctor_report(report: DoctorReport) -> Iterator[Block]:
    """Checks, one a line, with advice below."""
    marks = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
    width = max(len(check.topic) for check in report.checks)
    for check in report.checks:
        yield f"{marks[check.state]:<7}  {check.topic:<{width}}  {check.text}"
        if check.advice:
            yield f"{'':<7}  {'':<{width}}  → {check.advice}"


def _some(references: Sequence[str]) -> str:
    """``math@2, code@1``; of many, the first and how many more."""
    more = len(references) - _NAMED_PROFILES
    named = ", ".join(references[:_NAMED_PROFILES])
    return f"{named} and {count(more, 'more profile')}" if more > 0 else named


def _aside(text: str | None) -> str:
    return f" ({text})" if text else ""


def _sample_source(source: Any) -> str:
    parts = [f"{count(source.n_samples, 'sample')} of {source.set_name}@{source.version}"]
    if source.where is not None:
        parts.append(f"where {source.where}")
    if source.limit is not None:
        parts.append(f"limit {source.limit} seed {source.seed}")
    if source.weights is not None:
        parts.append(f"{source.weights.in_words} (count as {source.weights.effective_samples:,.1f} of one weight)")
    return ", ".join(parts)
