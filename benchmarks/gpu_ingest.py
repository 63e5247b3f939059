"""Ingest of a Llama-2-7B-shaped model: beside the bare forward pass, the usual script and the matmul rate.

The model has random bfloat16 weights, so that nothing has to be downloaded, and is made in place: what is measured is
all of an ingest but loading. Its samples have the lengths of instruction data: of ``--data`` if given, else drawn from
a bundled histogram of 6,000 Alpaca, code and maths records under the Alpaca prompt. ``mlp`` means of every layer go to
disk. *Matmul rate* is the best that plain products of two bfloat16 matrices reach in the same round: those of a layer
on a full batch, and square ones. *Achieved* counts the products with the decoder's weights, not those in attention.
*Bare forward* and *the usual script* are those of benchmarks/ingest.py, with other copies of the model.

On a CUDA device the model has its full size; elsewhere ``--scale`` makes it smaller, and the figures then show that the
script runs. arXiv 2603.13201 reports 1.32 hours for 52,002 Alpaca samples on an A800.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Options, Report, Timing, interleave, ratio, ratio_of, run, workspace
from benchmarks.ingest import bare_forward, ingest_into, laid_out, pool_file, synchronize, usual_script
from benchmarks.json_lines import read_json_lines, write_json_lines

_HIDDEN, _INTERMEDIATE, _LAYERS, _HEADS, _VOCABULARY = 4096, 11008, 32, 32, 32000
_CPU_SCALE, _TOY_SCALE = 16, 128
_SAMPLES, _CPU_SAMPLES, _TOY_SAMPLES = 2048, 128, 24
_PAPER_SAMPLES, _PAPER_HOURS = 52_002, 1.32
_SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1)
_LENGTHS = (47, 81, 96, 112, 129, 145, 161, 178, 203, 239, 272, 318, 365, 395, 810)
"""Tokens that so large a share of the records does not exceed."""
_PROMPT_TOKENS = 49
_CHARACTERS_PER_TOKEN = 3.9
_MAX_TOKENS = 2048


@dataclass(frozen=True)
class Shape:
    """Sizes of the model.

    Attributes
    ----------
    scale
        1 for the full size; widths are divided by it.
    """

    scale: int

    @property
    def hidden(self) -> int:
        """H; at least one head of 8."""
        return max(8, _HIDDEN // self.scale)

    @property
    def intermediate(self) -> int:
        """J."""
        return max(16, _INTERMEDIATE // self.scale)

    @property
    def n_layers(self) -> int:
        """L; fewer where the model is scaled down."""
        return _LAYERS if self.scale == 1 else max(2, _LAYERS // min(self.scale, 4))

    @property
    def flops_per_token(self) -> int:
        """Of the products with the decoder's weights."""
        return 2 * self.n_layers * (4 * self.hidden**2 + 3 * self.hidden * self.intermediate)

    def __str__(self) -> str:
        return f"{self.n_layers} layers, hidden {self.hidden:,}, J = {self.intermediate:,}"


def main(argv: list[str] | None = None) -> None:
    run(__doc__ or "", body, packages=("torch", "transformers"), add_arguments=_arguments, argv=argv)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="JSONL of instruction data, or a folder with pool.jsonl: its lengths are taken")
    parser.add_argument("--samples", type=int, help=f"samples (default {_SAMPLES:,}; {_CPU_SAMPLES} without CUDA)")
    parser.add_argument(
        "--scale",
        type=int,
        help="divide the widths by this (default 1; needed without CUDA)",
    )
    parser.add_argument("--token-budget", help="tokens in a batch, or auto (default: by device)")


def body(options: Options, report: Report) -> None:
    import torch

    given = options.extra
    on_gpu = torch.cuda.is_available() and not options.toy
    if not (on_gpu or options.toy or given.scale):
        why = f"there is no CUDA device; --scale {_CPU_SCALE} runs a smaller model on the cores, in half an hour"
        report.table("Ingest of a 7B model", ["skipped"], [[why]])
        return
    shape = Shape(given.scale or (_TOY_SCALE if options.toy else 1))
    n_samples = given.samples or (_TOY_SAMPLES if options.toy else _SAMPLES if on_gpu else _CPU_SAMPLES)
    lengths = sample_lengths(n_samples, pool_file(Path(given.data)) if given.data else None)
    needed_bytes = 2 * n_samples * (2 * shape.n_layers * shape.intermediate + 8 * _MAX_TOKENS)
    with workspace(options, needed_bytes) as folder:
        data = _write_records(folder / "data.jsonl", lengths)
        with _open_session(shape, folder / "model", "cuda:0" if on_gpu else "cpu", given.token_budget) as session:
            _measure(options, report, shape, session, data, folder)


def sample_lengths(n_samples: int, data: Path | None) -> list[int]:
    """Return tokens of each sample: those of a file's records, spread over it, or of the bundled histogram.

    Parameters
    ----------
    n_samples
        How many.
    data
        JSON Lines of records with ``instruction``, ``input``, ``output``: 3.9 characters count as a token, and the
        Alpaca prompt takes 49.
    """
    middles = (np.arange(n_samples) + 0.5) / n_samples
    if data is None:
        drawn = np.interp(middles, _SHARES, _LENGTHS)
    else:
        records = read_json_lines(data)
        characters = [sum(len(r.get(key) or "") for key in ("instruction", "input", "output")) for r in records]
        drawn = np.array(characters)[(middles * len(records)).astype(int)] / _CHARACTERS_PER_TOKEN + _PROMPT_TOKENS
    rounded = np.clip(np.random.default_rng(0).permutation(drawn).round(), 1, _MAX_TOKENS)
    return [int(length) for length in rounded]


def _write_records(path: Path, lengths: list[int]) -> Path:
    # " word" is one token of the tokenizer below; the first one, which loses its space, is five.
    texts = ("word" + " word" * max(0, length - 4) for length in lengths)
    return write_json_lines(path, ({"text": text, "number": i} for i, text in enumerate(texts)))


def _make_model(shape: Shape, device: str) -> Any:
    """Make a model with random weights where it runs."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    n_heads = max(1, min(_HEADS, shape.hidden // 8))
    config = AutoConfig.for_model(
        "llama",
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_heads,
        vocab_size=_VOCABULARY if shape.scale == 1 else 512,
        max_position_embeddings=4096,
        dtype="bfloat16",
    )
    with torch.device(device):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval().requires_grad_(False)


def _open_session(shape: Shape, folder: Path, device: str, token_budget: str | None) -> Any:
    """Make a model, and a session over it.

    The fingerprint is that of a folder with the configuration and one small tensor: hashing 13 GB belongs to loading.
    """
    import torch
    from safetensors.torch import save_file

    from nait_store.capture.models import LoadedModel
    from nait_store.capture.session import CaptureOptions, CaptureSession
    from nait_store.schemas.capture import Feature
    from nait_store.testing.tiny_tokenizers import tiny_tokenizer

    model = _make_model(shape, device)
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    save_file({"placeholder": torch.zeros(1)}, folder / "model.safetensors")
    loaded = LoadedModel(
        model=model,
        tokenizer=tiny_tokenizer(),
        source=str(folder),
        model_type="llama",
        n_parameters=model.num_parameters(),
        hidden_size=shape.hidden,
        n_layers=shape.n_layers,
        dtype="bfloat16",
        device=device,
        devices=device,
        max_positions=4096,
        revision=None,
        vocabulary_size=model.config.vocab_size,
    )
    budget = int(token_budget) if token_budget and token_budget != "auto" else token_budget
    options = CaptureOptions(str(folder), template="plain", device=device, token_budget=budget)
    return CaptureSession(loaded, options, [Feature.MEAN])


def _measure(options: Options, report: Report, shape: Shape, session: Any, data: Path, folder: Path) -> None:
    from nait_store.testing.tiny_tokenizers import tiny_tokenizer

    store = folder / "store"
    batch_tokens = session.usage.token_budget
    products = matmuls(shape, session.device, batch_tokens)
    seen: list[Any] = []
    cases: dict[str, Callable[[], object]] = {
        **{name: product for name, (product, _) in products.items()},
        "bare forward": bare_forward(_make_model(shape, session.device), session, laid_out(session, data)),
        "ingest": lambda: seen.append(ingest_into(session, data, store)),
        "the usual script": usual_script(
            _make_model(shape, session.device), tiny_tokenizer(), data, folder / "script.pt", _MAX_TOKENS
        ),
    }
    timings = interleave(cases, options.rounds, before=lambda _name: shutil.rmtree(store, ignore_errors=True))
    n_tokens, n_samples = seen[-1].n_tokens, seen[-1].n_added
    rates = {name: [flops / seconds for seconds in timings[name].seconds] for name, (_, flops) in products.items()}
    best = [max(values) for values in zip(*rates.values(), strict=True)]  # of each round
    not_run = 2 * shape.hidden * shape.intermediate  # the last down projection, which nothing reads the output of
    achieved = [n_tokens * (shape.flops_per_token - not_run) / seconds for seconds in timings["ingest"].seconds]
    tokens_per_second = n_tokens / timings["ingest"].median
    hours = _PAPER_SAMPLES * n_tokens / n_samples / tokens_per_second / 3600
    usage = session.usage
    rows = [
        *((f"matmul rate, {name}", _rate(values)) for name, values in rates.items()),
        ("ingest", f"{tokens_per_second:,.0f} tokens/s"),
        ("achieved", _rate(achieved)),
        ("written", f"{seen[-1].bytes_written / timings['ingest'].median / 1e6:,.0f} MB/s"),
        ("peak memory", f"{usage.peak_memory_bytes / 2**30:,.1f} GiB"),
        (f"projected, {_PAPER_SAMPLES:,} samples", f"{hours:.2f} h" if shape.scale == 1 else "not at this scale"),
        ("the paper, on an A800", f"{_PAPER_HOURS} h"),
    ]
    scaled = "" if shape.scale == 1 else f", scaled down {shape.scale} times"
    report.table(
        f"{shape}{scaled}: {n_samples:,} samples, {n_tokens:,} tokens, {usage.layout} batches of {batch_tokens:,} on "
        f"{_name(session.device)}",
        ["what", "figure"],
        rows,
        f"Ingest: median of {options.rounds} rounds, {_spread(timings['ingest'])} s.",
    )
    report.timings(
        "The same samples", {name: timings[name] for name in cases if name not in products}, reference="bare forward"
    )
    report.limit("ingest / bare forward", "≤", 1.10, ratio(timings["ingest"], timings["bare forward"]))
    report.limit("the usual script / ingest", "≥", 5, ratio(timings["the usual script"], timings["ingest"]))
    if shape.scale == 1:
        report.limit("achieved / matmul rate", "≥", 0.5, ratio_of(achieved, best))
        report.limit("projected hours / the paper's", "≤", 1.0, hours / _PAPER_HOURS)
    else:
        report.table(
            "Share of the matmul rate", ["what", "figure"], [("achieved / matmul rate", str(ratio_of(achieved, best)))]
        )


def matmuls(shape: Shape, device: str, batch_tokens: int) -> dict[str, tuple[Callable[[], object], float]]:
    """Return plain products by name, with the operations that each takes."""
    import torch

    def random(*size: int) -> Any:
        return torch.randn(*size, dtype=torch.bfloat16, device=device)

    hidden, wide = random(batch_tokens, shape.hidden), random(batch_tokens, shape.intermediate)
    around, up, down = (
        random(shape.hidden, shape.hidden),
        random(shape.hidden, shape.intermediate),
        random(shape.intermediate, shape.hidden),
    )
    n_layers = shape.n_layers
    side = 2 * shape.hidden
    square = random(side, side)
    n_squares = max(1, round(batch_tokens * shape.flops_per_token / (2 * side**3)))

    def layers() -> None:
        for _ in range(n_layers):
            for weight in (around, around, around, around, up, up):
                torch.mm(hidden, weight)
            torch.mm(wide, down)
        synchronize(device)

    def squares() -> None:
        for _ in range(n_squares):
            torch.mm(square, square)
        synchronize(device)

    return {
        "a layer's products": (layers, float(batch_tokens * shape.flops_per_token)),
        f"{side:,} × {side:,}": (squares, float(n_squares * 2 * side**3)),
    }


def _name(device: str) -> str:
    from nait_store.capture.memory import device_name

    return device_name(device)


def _rate(values: list[float]) -> str:
    """Show the median of rates in operations a second."""
    return f"{np.median(values) / 1e9:,.1f} GFLOP/s"


def _spread(timing: Timing) -> str:
    return f"{min(timing.seconds):,.1f}–{max(timing.seconds):,.1f}"


if __name__ == "__main__":
    main()
