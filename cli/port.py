"""``nait-store profile port|family``: a profile and its sisters on other models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.model_options import (
    Adapter,
    ComputeDtype,
    Device,
    DeviceMap,
    HookPath,
    MaxMemory,
    Quantization,
    TokenBudget,
    TrustRemoteCode,
    parse_token_budget,
)
from nait_store.cli.options import Message, open_store, parse_layers, parse_pairs
from nait_store.cli.quantities import count, numbers
from nait_store.cli.stopping import stoppable
from nait_store.cli.tables import Table
from nait_store.cli.views import Block
from nait_store.store.options import PortOptions

if TYPE_CHECKING:
    from nait_store.store.porting import PortReport
    from nait_store.store.profile_listing import ProfileSummary


def port(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="PROFILE", show_default=False, help="math, or math@3.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="Folder or hub id of the other model.")],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the sister profile.", show_default="the profile's and the model's"),
    ] = None,
    set_name: Annotated[
        str | None,
        typer.Option(
            "--set",
            metavar="NAME",
            help="Set for the in-domain samples.",
            show_default="one that holds them, or a new one",
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Layers of the model, from 0, e.g. 0,2,5-7, or all.",
            show_default="all, if the profile has all",
        ),
    ] = None,
    template: Annotated[
        Literal["auto", "chat", "alpaca", "plain"] | None,
        typer.Option(help="How a sample becomes text.", show_default="as the profile; auto where that is chat"),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS", min=1, help="Truncate here.", show_default="as the profile, or the model's limit"
        ),
    ] = None,
    reference_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="File with the in-domain samples, where the store does not hold them; may be repeated.",
            show_default=False,
        ),
    ] = None,
    field_map: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=FIELD", help="As given when the file was ingested.", show_default=False),
    ] = None,
    id_field: Annotated[
        str | None, typer.Option(metavar="FIELD", help="As given when the file was ingested.", show_default=False)
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Build from the samples that are found.", show_default=False),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="Background of a contrastive profile: a set of the model.",
            show_default="one with the same samples",
        ),
    ] = None,
    capture_background: Annotated[
        bool,
        typer.Option(
            "--capture-background", help="Capture the background's samples, if no set has them.", show_default=False
        ),
    ] = False,
    adapter: Adapter = None,
    quantization: Quantization = None,
    hook_path: HookPath = None,
    compute_dtype: ComputeDtype = "auto",
    dtype: Annotated[
        Literal["auto", "float16", "bfloat16", "int8", "float32"], typer.Option(help="Of what is stored.")
    ] = "auto",
    device: Device = "auto",
    devices: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="A copy of the model on each: all, or cuda:0,cuda:1.", show_default=False),
    ] = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    token_budget: TokenBudget = None,
    trust_remote_code: TrustRemoteCode = False,
    message: Message = "",
) -> None:
    """Build a profile's sister on another model.

    The in-domain samples are captured there, unless a set holds them already, and the recipe is repeated. The same
    command again computes nothing, and goes on after an interrupt.
    """
    console: Console = context.obj
    options = PortOptions(
        name=name,
        set=set_name,
        layers="all" if layers == "all" else parse_layers(layers),
        template=template,
        max_length=max_length,
        reference_files=tuple(reference_file or ()),
        map=parse_pairs("--map", field_map or [], "instruction=question,output=answer") or None,
        id_field=id_field,
        allow_missing=allow_missing,
        against=against,
        capture_background=capture_background,
        adapter=adapter,
        quantization=quantization,
        hook_path=hook_path,
        compute_dtype=compute_dtype,
        dtype=dtype,
        device=device,
        devices=devices,
        device_map=device_map,
        max_memory=parse_pairs("--max-memory", max_memory or [], "0=20GiB,cpu=60GiB") or None,
        token_budget=parse_token_budget(token_budget),
        trust_remote_code=trust_remote_code,
        message=message,
    )
    with console.progress() as progress, stoppable(quiet=console.quiet or console.as_json):
        report = open_store(console, progress).profiles.port(
            reference,
            model=model,
            announce=lambda estimate: console.note(views.expected_size(estimate)),
            **options,
        )
    console.warn(report.warnings)
    console.summary(report, port_report(report, console))


def family(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="PROFILE", show_default=False, help="Name of the profile.")],
    every: Annotated[
        bool, typer.Option("--all", help="Every version, not only the latest of each profile.", show_default=False)
    ] = False,
) -> None:
    """List a profile and its sisters on other models."""
    console: Console = context.obj
    members = open_store(console).profiles.family(reference, all_versions=every)
    console.result(members, family_view(members, console))


def family_view(members: Sequence[ProfileSummary], console: Console) -> Iterator[Block]:
    """One line a profile; then which of them repeat a version that has a newer one."""
    rows = [
        (
            one.reference,
            one.model,
            one.n_layers,
            one.n_neurons,
            one.ported_from,
            one.source,
            one.n_samples,
            f"{one.created_at:%Y-%m-%d %H:%M:%S}",
        )
        for one in members
    ]
    yield Table(("profile", "model", "layers", "neurons", "ported from", "from", "samples", "built (UTC)"), rows)
    latest = dict(sorted(_number(one.reference) for one in members))
    for one in members:
        name, number = _number(one.reference)
        if one.ported_from is None or latest[name] != number:
            continue
        origin, ported = _number(one.ported_from)
        if latest.get(origin, 0) > ported:
            yield f"{one.reference} repeats {one.ported_from}, and {origin}@{latest[origin]} is newer"
            if not console.quiet:
                yield console.hint(f"profile port {origin} --model {one.model or 'MODEL'} --name {name}")


def _number(reference: str) -> tuple[str, int]:
    name, _, number = reference.partition("@")
    return name, int(number)


def port_report(report: PortReport, console: Console) -> list[str]:
    """What was built, from what, and in what it differs."""
    if report.created:
        first = (
            f"{report.profile}: the sister of {report.ported_from} on {report.model}, from "
            f"{count(report.n_samples, 'sample')} of {report.set_ref}"
        )
    else:
        first = f"{report.profile} is this very port of {report.ported_from} already: nothing was computed"
    lines = [first]
    if report.created:
        against = f", against {report.background_ref}" if report.background_ref else ""
        lines.append(f"  layers {numbers(report.layers)}{against}; {count(report.n_captured, 'sample')} captured now")
    if report.n_missing:
        lines.append(f"  without {count(report.n_missing, 'sample')} of {report.ported_from}")
    lines += [f"  differs: {difference}" for difference in report.differences]
    lines.append(console.hint(f"profile family {report.profile.partition('@')[0]}"))
    return lines
