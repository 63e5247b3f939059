"""``nait-store analyze audit``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nait_store.cli.analysis_views import Picture, findings_view, open_picture
from nait_store.cli.console import Console, as_json
from nait_store.cli.model_options import Device, DeviceMap, MaxMemory, TokenBudget, TrustRemoteCode, parse_token_budget
from nait_store.cli.options import open_store, parse_pairs
from nait_store.cli.quantities import count
from nait_store.cli.tables import Table
from nait_store.cli.views import Block
from nait_store.store.options import RecaptureOptions

if TYPE_CHECKING:
    from nait_store.analysis.audit import SetAudit
    from nait_store.analysis.audited_scores import ProfileScores


def audit(
    context: typer.Context,
    set_ref: Annotated[str, typer.Argument(metavar="SET", show_default=False, help="pool, or pool@3.")],
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROFILE",
            help="Profile whose scores to look at; may be repeated.",
            show_default="those whose scores are stored",
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of the samples that scores are told apart by.")
    ] = "source_uri",
    samples: Annotated[int, typer.Option(metavar="N", min=2, max=1024, help="How many samples to capture again.")] = 32,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of their draw.")] = 0,
    recapture: Annotated[
        bool,
        typer.Option("--recapture/--no-recapture", help="Whether to capture samples again.", show_default="captured"),
    ] = True,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Where the set's model is now.", show_default="where its ingest had it"),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="ADAPTER", help="Where its adapter is now.", show_default="where its ingest had it"),
    ] = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    token_budget: TokenBudget = None,
    trust_remote_code: TrustRemoteCode = False,
    picture: Picture = None,
    force: Annotated[
        bool,
        typer.Option("--force", "--overwrite", help="Replace the file of --picture if it exists.", show_default=False),
    ] = False,
) -> None:
    """Say what makes the scores of a set, beside the capability.

    Length, sources, truncation and repeated texts; and, on some samples that are captured again, what batches, BOS, the
    first token and the template do. Nothing is changed, but for scores that are missing.
    """
    console: Console = context.obj
    drawn = open_picture(picture, overwrite=force)
    options = RecaptureOptions(
        model=model,
        adapter=adapter,
        device=device,
        device_map=device_map,
        max_memory=parse_pairs("--max-memory", max_memory or [], "0=20GiB,cpu=60GiB") or None,
        token_budget=parse_token_budget(token_budget),
        trust_remote_code=trust_remote_code,
    )
    with console.progress() as progress:
        found = open_store(console, progress).analyses.audit(
            set_ref, *profile or (), by=by, samples=samples, seed=seed, recapture=recapture, **options
        )
    console.warn(found.warnings)
    if drawn is not None:
        drawn.write(found.picture(drawn.form))
        console.note(f"histograms drawn to {drawn.url}")
    console.result({**audit_value(found), "picture": drawn.url if drawn else None}, audit_view(found))


def audit_value(found: SetAudit) -> dict[str, Any]:
    """JSON form: the verdict, the findings, and all numbers."""
    return {"ok": found.ok, "findings": as_json(found.findings), **as_json(found)}


def audit_view(found: SetAudit) -> Iterator[Block]:
    """The findings, then the scores of every profile by source."""
    yield f"{found.set_ref}: {count(found.n_samples, 'sample')}"
    yield ""
    yield from findings_view(found.findings)
    for scores in found.profiles:
        if scores.edges:
            yield ""
            yield _histogram(found, scores)


def _histogram(found: SetAudit, scores: ProfileScores) -> Table:
    names = [one.value or "(none)" for one in scores.sources] if found.n_sources > 1 else ["samples"]
    rows = [
        (f"{low:.4g} … {high:.4g}", *(one.counts[place] for one in scores.sources))
        for place, (low, high) in enumerate(zip(scores.edges, scores.edges[1:], strict=False))
    ]
    n_more = found.n_sources - len(scores.sources)
    more = f"; {count(n_more, 'more value')} not shown" if n_more else ""
    return Table(("score", *names), rows[::-1], f"scores under {scores.profile} by {found.by}{more}")
