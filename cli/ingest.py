"""``nait-store ingest``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.model_options import (
    Adapter,
    ComputeDtype,
    Device,
    HookPath,
    Quantization,
    TokenBudget,
    TrustRemoteCode,
    parse_token_budget,
)
from nait_store.cli.options import Message, open_store, parse_layers, parse_list, parse_pairs
from nait_store.cli.stopping import stoppable
from nait_store.errors import InvalidInputError
from nait_store.store.options import IngestOptions


def ingest(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES",
            show_default=False,
            help="JSONL, JSON, CSV, Parquet or Arrow files (also .gz, .zst), globs, fsspec URLs, hf-datasets:ID.",
        ),
    ],
    set_name: Annotated[
        str, typer.Option("--set", metavar="NAME", help="Activation set to append to; created if new.")
    ],
    model: Annotated[str, typer.Option(metavar="MODEL", help="Folder or hub id of a causal language model.")],
    adapter: Adapter = None,
    quantization: Quantization = None,
    features: Annotated[
        str, typer.Option(metavar="LIST", help="Features to store: mean, drift, last, separated by commas.")
    ] = "mean",
    hook: Annotated[
        Literal["mlp", "residual", "attn"], typer.Option(help="Where in a layer the neurons are read.")
    ] = "mlp",
    hook_path: HookPath = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Layers to store, from 0, e.g. 0,2,5-7; those above the last of them are not run.",
            show_default="all",
        ),
    ] = None,
    template: Annotated[
        Literal["auto", "chat", "alpaca", "plain"],
        typer.Option(help="How a sample becomes text; auto is the model's chat template if it has one."),
    ] = "auto",
    span: Annotated[
        Literal["all", "response"], typer.Option(help="Content to measure: all turns, or the assistant's only.")
    ] = "all",
    span_edges: Annotated[
        Literal["content", "rendered"], typer.Option(help="Whether template scaffolding counts as content.")
    ] = "content",
    max_length: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", min=1, help="Truncate here.", show_default="min(2048, the model's limit)"),
    ] = None,
    compute_dtype: ComputeDtype = "auto",
    dtype: Annotated[
        Literal["auto", "float16", "bfloat16", "int8", "float32"],
        typer.Option(
            help="Of what is stored; auto is the set's, or float16, or bfloat16 where values come near its range. int8 "
            "takes half of either."
        ),
    ] = "auto",
    device: Device = "auto",
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="A copy of the model on each of these devices, which share the batches: all, or e.g. cuda:0,cuda:1.",
            show_default=False,
        ),
    ] = None,
    device_map: Annotated[
        str | None,
        typer.Option(
            metavar="MAP",
            help="Spread the model over this machine's devices: auto, balanced, balanced_low_0, sequential, or a JSON "
            "file of module paths and devices (0, cpu, disk).",
        ),
    ] = None,
    max_memory: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICE=SIZE", help="What the weights may take there, e.g. 0=20GiB,cpu=60GiB.", show_default=False
        ),
    ] = None,
    token_budget: TokenBudget = None,
    field_map: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME=FIELD",
            help="Which of your fields is instruction, input, output, text, messages or system, e.g. "
            "instruction=question,output=answer; detected if not given.",
        ),
    ] = None,
    id_field: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Field that holds the sample id.", show_default="a hash of the content"),
    ] = None,
    on_error: Annotated[
        Literal["stop", "skip"], typer.Option(help="What to do about a record that cannot be used.")
    ] = "stop",
    rejects: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write rejected records here, as JSON lines.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Read at most N records.")] = None,
    score_with: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Profiles to score the samples with while they are written, separated by commas, or none.",
            show_default="all that apply",
        ),
    ] = None,
    keep_features: Annotated[
        Literal["all", "none"] | None,
        typer.Option(
            help="Whether to keep the activations; none keeps only the scores' terms per layer, under the profiles of "
            "--score-with.",
            show_default="as the set does, or all",
        ),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    message: Message = "",
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Capture with the workers of a Ray cluster: local starts one here, auto joins the one that runs or "
            "starts one, host:port or ray://host:port joins that one.",
            show_default=False,
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Processes of the cluster that load the model.",
            show_default="one for every group of GPUs, or every machine",
        ),
    ] = None,
    ray_gpus_per_worker: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="GPUs of each worker; above 1 the model is spread over them, or with --devices all copied to each.",
            show_default="1, or 0 where there are none",
        ),
    ] = None,
) -> None:
    """Run records through a model, append their activations.

    Samples that the set holds already are skipped before the forward pass: the same command again costs little,
    and resumes what was interrupted. Ctrl-C commits what was captured; a second one stops at once.
    """
    console: Console = context.obj
    options = IngestOptions(
        adapter=adapter,
        quantization=quantization,
        hook=hook,
        hook_path=hook_path,
        layers=parse_layers(layers),
        template=template,
        span=span,
        span_edges=span_edges,
        max_length=max_length,
        compute_dtype=compute_dtype,
        dtype=dtype,
        device=device,
        devices=devices,
        device_map=device_map,
        max_memory=parse_pairs("--max-memory", max_memory or [], "0=20GiB,cpu=60GiB") or None,
        token_budget=parse_token_budget(token_budget),
        map=parse_pairs("--map", field_map or [], "instruction=question,output=answer") or None,
        id_field=id_field,
        on_error=on_error,
        rejects=rejects,
        limit=limit,
        score_with=_score_with(score_with),
        keep_features=keep_features,
        trust_remote_code=trust_remote_code,
        message=message,
        ray=ray,
        ray_workers=ray_workers,
        ray_gpus_per_worker=ray_gpus_per_worker,
    )
    if ray is None and (ray_workers is not None or ray_gpus_per_worker is not None):
        raise InvalidInputError(
            "--ray-workers and --ray-gpus-per-worker are about a cluster, and none is named",
            next_step="add --ray local, or the address of a cluster",
        )
    with console.progress() as progress, stoppable(quiet=console.quiet or console.as_json):
        store = open_store(console, progress)
        report = store.ingest(
            sources,
            set=set_name,
            model=model,
            features=parse_list(features),
            announce=lambda estimate: console.note(views.expected_size(estimate)),
            **options,
        )
    console.warn(report.warnings)
    console.summary(report, views.ingest_report(report, console))


def _score_with(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = parse_list(text)
    if not names:
        raise InvalidInputError(
            "--score-with names no profile", next_step="name some, say --score-with math,code@2, or write none"
        )
    return () if names == ("none",) else names
