"""``nait-store push``, ``pull`` and ``sync``: profiles on their way from store to store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.cli.quantities import count, size
from nait_store.cli.tables import harmless

if TYPE_CHECKING:
    from nait_store.registry.sharing.adoption import Pulled
    from nait_store.registry.sharing.departure import Pushed
    from nait_store.schemas.sharing import ReferencePolicy
    from nait_store.store.synchronisation import SyncReport

RemoteArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="REMOTE",
        show_default=False,
        help="Registry: folder, fsspec URL, or a name of 'remote list'; not needed where the store knows just one.",
    ),
]

SignOption = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Private Ed25519 key file (OpenSSH or PEM) to sign with.", show_default=False),
]
RequireSignedOption = Annotated[
    bool,
    typer.Option("--require-signed", help="Refuse what no key of 'trust list' has signed.", show_default=False),
]


def push(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="PROFILE", show_default=False, help="math, or math@2.")],
    remote: RemoteArgument = None,
    as_name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Publish it under the next number of this name.", show_default=False),
    ] = None,
    reference_samples: Annotated[
        Literal["full", "hashes", "none"] | None,
        typer.Option(
            "--reference",
            help="What travels of the in-domain samples.",
            show_default="hashes, where the samples are still here",
        ),
    ] = None,
    anew: Annotated[
        bool,
        typer.Option("--anew", help="Send all files again: the registry lost or damaged some.", show_default=False),
    ] = False,
    sign: SignOption = None,
) -> None:
    """Publish a profile version in a registry that stores share."""
    console: Console = context.obj
    pushed = open_store(console).remotes.push(
        reference, remote, as_name=as_name, reference_samples=reference_samples, anew=anew, sign=sign
    )
    console.warn(pushed.notes)
    console.summary(pushed, list(_pushed(pushed)))


def pull(
    context: typer.Context,
    reference: Annotated[
        str, typer.Argument(metavar="PROFILE", show_default=False, help="math: the latest there; or math@2.")
    ],
    remote: RemoteArgument = None,
    as_name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Take it as the next version of this name.", show_default=False),
    ] = None,
    require_signed: RequireSignedOption = False,
) -> None:
    """Take a profile version from a registry that stores share."""
    console: Console = context.obj
    pulled = open_store(console).remotes.pull(reference, remote, as_name=as_name, require_signed=require_signed)
    console.warn(pulled.profile.record.warnings)
    hint = console.hint(f"profile check {pulled.profile.reference} --set SET")
    console.summary(pulled_value(pulled), [*pulled_lines(pulled), hint])


def sync(
    context: typer.Context,
    remote: RemoteArgument = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--profile", metavar="NAME", help="Bring over this one; repeatable.", show_default="all that is there"
        ),
    ] = None,
    direction: Annotated[
        Literal["both", "push", "pull"], typer.Option(help="Push what is missing there, pull what is missing here.")
    ] = "both",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.", show_default=False)
    ] = False,
    sign: SignOption = None,
    require_signed: RequireSignedOption = False,
) -> None:
    """Bring the store and a registry to the same versions of profiles."""
    console: Console = context.obj
    report = open_store(console).remotes.sync(
        remote, names or (), direction=direction, dry_run=dry_run, sign=sign, require_signed=require_signed
    )
    console.warn(report.notes)
    console.result(report, list(_synced(report)))
    if report.problems:
        raise typer.Exit(report.problems[0].exit_code)


def _pushed(pushed: Pushed) -> Iterator[str]:
    named = "" if pushed.published == pushed.reference else f" as {pushed.published}"
    moved = f"{count(pushed.moved.n_files, 'file')} sent, {size(pushed.moved.n_bytes)} of {size(pushed.size_bytes)}"
    if pushed.created:
        yield f"{pushed.reference} published{named} in {pushed.url}: {moved}"
        yield f"with it goes: {travelled(pushed.policy)} its in-domain samples"
    elif pushed.moved.n_files:
        yield f"{pushed.reference} was published{named} in {pushed.url} before: {moved}"
    else:
        yield f"{pushed.reference} was published{named} in {pushed.url} before; nothing was sent"
    yield f"others get it with: nait-store pull {pushed.published} {pushed.url}"


def pulled_value(pulled: Pulled) -> dict[str, Any]:
    """What came, for ``--json``."""
    return {
        "reference": pulled.profile.reference,
        "published": pulled.published,
        "url": pulled.url,
        "created": pulled.created,
        "policy": pulled.policy,
        "moved": pulled.moved,
        "size_bytes": pulled.size_bytes,
        "signed_by": pulled.signed_by,
        "profile": pulled.profile.record,
    }


def travelled(policy: ReferencePolicy) -> str:
    """What travelled of the in-domain samples: ``hashes of``."""
    return {"full": "records of", "hashes": "hashes of", "none": "nothing of"}[policy.value]


def pulled_lines(pulled: Pulled) -> Iterator[str]:
    """What came, for people."""
    reference = pulled.profile.reference
    named = "" if pulled.published == reference else f" (there: {pulled.published})"
    if not pulled.created:
        yield f"{reference} is here already{named}; nothing was fetched"
        return
    moved = f"{count(pulled.moved.n_files, 'file')} fetched, {size(pulled.moved.n_bytes)} of {size(pulled.size_bytes)}"
    yield f"{reference} pulled from {pulled.url}{named}: {moved}"
    yield f"with it came: {travelled(pulled.policy)} its in-domain samples"
    if pulled.signed_by:
        yield f"signed by {', '.join(pulled.signed_by)}"


def _synced(report: SyncReport) -> Iterator[str]:
    would = "would be " if report.dry_run else ""
    for done, references in (("pushed", report.pushed), ("pulled", report.pulled)):
        if references:
            yield f"{would}{done}: {', '.join(references)}"
    if not (report.pushed or report.pulled or report.problems):
        yield f"nothing is missing here, nor in {report.url}"
    if report.n_bytes:
        yield f"{size(report.n_bytes)} moved"
    if report.left:
        yield f"left, because they were deleted here: {', '.join(report.left)}"
    for problem in report.problems:
        yield harmless(f"not brought over: {problem.what}")
        if problem.next_step:
            yield f"  → {problem.next_step}"
