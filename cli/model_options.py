"""Options of commands that run samples through a model, told once; each command has its own defaults."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nait_store.errors import InvalidInputError

Adapter = Annotated[
    str | None,
    typer.Option(metavar="ADAPTER", help="Folder or hub id of a PEFT adapter (LoRA …) to lay over the model."),
]
Quantization = Annotated[
    Literal["8bit", "4bit"] | None,
    typer.Option(help="Quantise the weights while they are loaded, with bitsandbytes.", show_default=False),
]
HookPath = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Module path within a layer, where the structure does not tell."),
]
ComputeDtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Of weights and forward pass; auto is the checkpoint's."),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps.")]
DeviceMap = Annotated[
    str | None, typer.Option(metavar="MAP", help="Spread the model over this machine's devices, as for ingest.")
]
MaxMemory = Annotated[
    list[str] | None,
    typer.Option(metavar="DEVICE=SIZE", help="What the weights may take there.", show_default=False),
]
TokenBudget = Annotated[
    str | None,
    typer.Option(
        metavar="TOKENS", help="Tokens in a batch; auto tries them out, and remembers.", show_default="by device"
    ),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that the model brings along.", show_default=False)
]


def parse_token_budget(text: str | None) -> int | Literal["auto"] | None:
    """``"4096"`` → 4096, ``"auto"`` → ``"auto"``; None stays None."""
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise InvalidInputError(
            f"--token-budget {text} is neither a number of tokens nor 'auto'",
            next_step="give a number, say 4096, or auto",
        )
    return int(text)
