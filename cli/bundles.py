"""``nait-store export-bundle`` and ``import-bundle``: profiles in one file."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.cli.quantities import size
from nait_store.cli.sharing import RequireSignedOption, SignOption, pulled_lines, pulled_value, travelled


def export_bundle(
    context: typer.Context,
    references: Annotated[
        list[str], typer.Argument(metavar="PROFILE...", show_default=False, help="math, or math@2; several at once.")
    ],
    out: Annotated[str, typer.Option(metavar="FILE", show_default=False, help="The .zip file to write.")],
    reference_samples: Annotated[
        Literal["full", "hashes", "none"] | None,
        typer.Option(
            "--reference",
            help="What travels of the in-domain samples.",
            show_default="hashes, where the samples are still here",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.", show_default=False)] = False,
    sign: SignOption = None,
) -> None:
    """Write profile versions into one file, for mail."""
    console: Console = context.obj
    report = open_store(console).remotes.export_bundle(
        references, out, reference_samples=reference_samples, overwrite=force, sign=sign
    )
    console.warn(report.notes)
    lines = [f"{', '.join(report.references)} written to {report.url}, {size(report.size_bytes)}"]
    lines += [f"with it goes: {travelled(policy)} its in-domain samples" for policy in dict.fromkeys(report.policies)]
    console.summary(report, [*lines, f"others take it with: nait-store import-bundle {report.url}"])


def import_bundle(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="A bundle; path or fsspec URL.")],
    as_name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Take it as the next version of this name.", show_default=False),
    ] = None,
    require_signed: RequireSignedOption = False,
) -> None:
    """Take the profile versions of a bundle; all are checked before any is taken."""
    console: Console = context.obj
    found = open_store(console).remotes.import_bundle(file, as_name=as_name, require_signed=require_signed)
    for pulled in found:
        console.warn(pulled.profile.record.warnings)
    lines = [line for pulled in found for line in pulled_lines(pulled)]
    hint = console.hint(f"profile check {found[0].profile.reference} --set SET")
    console.summary([pulled_value(pulled) for pulled in found], [*lines, hint])
