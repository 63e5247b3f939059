"""``nait-store analyze transfer``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nait_store.cli import query_output
from nait_store.cli.analysis_views import open_picture
from nait_store.cli.console import Console, as_json
from nait_store.cli.options import ReplaceOut, open_store, parse_conditions
from nait_store.cli.quantities import count
from nait_store.cli.tables import Table, pairs
from nait_store.cli.views import Block

if TYPE_CHECKING:
    from nait_store.analysis.transfer import ProfileTransfer

_MOST_PAIRS_BY_LAYER = 6


def transfer(
    context: typer.Context,
    on: Annotated[
        str, typer.Option(metavar="SET", show_default=False, help="Set whose samples they rank, pool or pool@3.")
    ],
    profiles: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROFILES", help="math code@2 …", show_default="every one that applies"),
    ] = None,
    top: Annotated[str, typer.Option(metavar="N|N%", help="How many are the best.")] = "10%",
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Candidates are the samples for which this holds only.")
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROFILE=SQL",
            help="Which candidates are of a profile's domain: math=\"source = 'gsm8k'\".",
            show_default="the samples that it was built from",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write a row a pair there, as the ending says.", show_default=False),
    ] = None,
    picture: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw heatmaps: .png, .svg or .pdf.", show_default=False)
    ] = None,
    force: ReplaceOut = False,
) -> None:
    """Say how alike profiles are, and which finds whose domain.

    Directions are compared by cosine, rankings by correlation and by the overlap of the best. The area under the curve
    says how well one profile's scores tell the samples of another's domain from the other candidates.
    """
    console: Console = context.obj
    form = query_output.choose_form(None, out, as_json=False)
    target, drawn = query_output.open_target(out, overwrite=force), open_picture(picture, overwrite=force)
    with console.progress() as progress:
        store = open_store(console, progress)
        found = store.analyses.transfer(
            *profiles or (), on=on, top=top, where=where, domains=parse_conditions("--domain", domain or ())
        )
    console.warn(found.warnings)
    if drawn is not None:
        drawn.write(found.picture(drawn.form))
    if out == "-":
        query_output.write(found.rows(), "csv", None, console)
    else:
        if target is not None:
            with target.open() as stream:
                query_output.write_form(found.rows(), form, stream)
        written = {"written_to": target.url if target else None, "picture": drawn.url if drawn else None}
        console.result({**transfer_value(found), **written}, transfer_view(found))
        if target is not None:
            console.note(f"{count(found.rows().num_rows, 'row')} written to {target.url} ({form})")
    if drawn is not None:
        console.note(f"heatmaps drawn to {drawn.url}")


def transfer_value(found: ProfileTransfer) -> dict[str, Any]:
    """JSON form."""
    return {**as_json(found), "overlap_by_chance": found.overlap_by_chance}


def transfer_view(found: ProfileTransfer) -> Iterator[Block]:
    """What is ranked; every pair; who finds whose domain; and the pairs layer by layer."""
    yield pairs(
        [
            ("set", f"{found.set_ref}, {count(found.n_candidates, 'candidate')}"),
            ("where", found.where),
            ("best", f"{found.top}: {count(found.n_best, 'sample')} of each profile"),
        ]
    )
    yield ""
    rows = []
    for pair in found.pairs:
        low, high = (f"{pair.cosines[layer]:.4f} (layer {layer})" for layer in pair.extremes)
        overlap = f"{100 * pair.overlap:.1f} %"
        spearman = "undefined" if pair.spearman is None else f"{pair.spearman:.4f}"
        rows.append((_named(pair), f"{pair.cosine:.4f}", low, high, spearman, pair.n_common, overlap))
    yield Table(("profiles", "cosine", "lowest", "highest", "spearman", "in both", "overlap"), rows)
    yield f"two unrelated rankings share {100 * found.overlap_by_chance:.1f} % of the best on average"
    yield ""
    yield from _domains(found)
    if len(found.pairs) <= _MOST_PAIRS_BY_LAYER:
        yield ""
        yield _by_layer(found)
    else:
        yield "cosines by layer are written by --out FILE.csv and drawn by --picture FILE.png"


def _domains(found: ProfileTransfer) -> Iterator[Block]:
    known = [domain for domain in found.domains if domain.aucs]
    if known:
        columns = ("ranked by", *(f"of {domain.profile}" for domain in known))
        rows = [(name, *(f"{domain.aucs[name]:.3f}" for domain in known)) for name in found.profiles]
        yield Table(columns, rows, "area under the curve: samples of a domain told from the other candidates")
        for domain in known:
            yield f"of {domain.profile}: {domain.what}, told from {count(domain.n_others, 'other candidate')}"
        flattered = any(domain.where is None for domain in known)
        yield "0.5 is chance" + "; samples that a profile was built from flatter it" * flattered
    for domain in found.domains:
        if domain.unknown:
            yield f"the domain of {domain.profile} is left out: {domain.unknown}"


def _by_layer(found: ProfileTransfer) -> Table:
    rows = [
        (layer, *(f"{pair.cosines[layer]:.4f}" if layer in pair.cosines else None for pair in found.pairs))
        for layer in found.layers
    ]
    return Table(("layer", *map(_named, found.pairs)), rows, "cosine by layer")


def _named(pair: Any) -> str:
    return f"{pair.first}, {pair.second}"
