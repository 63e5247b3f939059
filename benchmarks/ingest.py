"""Ingest: against the bare forward pass, against the script everyone writes, and memory at 4× the samples.

*Bare forward* runs the decoder alone on the very batches that ingest makes, laid out the same way, tokens ready:
what remains is the price of reading, rendering, tokenising, hooks, reduction, writing and committing. Processor time,
beside the wall time, is that of all threads: what others do on the machine hardly moves it. *The script
everyone writes* reads the same file, runs the whole language model with ``output_hidden_states=True`` on padded
batches of 8 in file order, averages every layer's hidden states over each sample's tokens and saves them with
``torch.save``. Loading the model is in neither. *Ingest, lower half* stores the lower half of the layers, and runs no
others.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Options, Report, Timing, interleave, ratio, ratio_of, run, run_fresh, workspace
from benchmarks.json_lines import read_json_lines, write_json_lines

_MODULE = "benchmarks.ingest"
_BATCH = 8
_TEXT_KEYS = ("text", "instruction", "input", "output")
_TOY_SAMPLES = 64
_BYTES = 4 << 30


def main(argv: list[str] | None = None) -> None:
    run(__doc__ or "", body, packages=("torch", "transformers"), add_arguments=_arguments, argv=argv)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="folder of a causal language model")
    parser.add_argument("--data", help="JSONL of instruction data, or a folder with pool.jsonl")
    parser.add_argument("--samples", type=int, default=1200, help="samples in a timed run (default 1,200)")
    parser.add_argument("--device", default="auto", help="where all of it runs (default: CUDA if there is one)")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own)")


def body(options: Options, report: Report) -> None:
    given = options.extra
    if not options.toy and not (given.model and given.data):
        report.table("Ingest", ["skipped"], [["no --model and --data given"]], "Give both, or --toy.")
        return
    if given.threads:
        import torch

        torch.set_num_threads(given.threads)
    with workspace(options, _BYTES) as folder:
        model, data = (given.model, pool_file(Path(given.data))) if given.model and given.data else toy_inputs(folder)
        n_samples = min(given.samples, _TOY_SAMPLES) if options.toy else given.samples
        part = spread_records(data, folder / "part.jsonl", n_samples)
        _time(options, report, folder, model, part)
        _memory(options, report, folder, model, data, n_samples)


def pool_file(data: Path) -> Path:
    """Return the JSON Lines file that ``--data`` names."""
    return data / "pool.jsonl" if data.is_dir() else data


def toy_inputs(folder: Path) -> tuple[str, Path]:
    """Make a tiny model and a file of made-up records."""
    from nait_store.testing.tiny_models import save_tiny_model

    model = save_tiny_model(folder / "model", "llama", max_position_embeddings=256)
    data = folder / "data.jsonl"
    write_json_lines(
        data, ({"instruction": f"What is {n} and {n + 1}?", "output": "word " * (n % 23 + 1)} for n in range(4 * 64))
    )
    return str(model), data


def spread_records(data: Path, target: Path, n_samples: int) -> Path:
    """Copy a part of a JSONL file, spread over all of it; repeat it, with other ids, where it is too short."""
    records = read_json_lines(data)
    step = max(1, len(records) // n_samples)
    chosen = records[::step][:n_samples]
    copies = ({**chosen[number % len(chosen)], "copy": number // len(chosen)} for number in range(n_samples))
    return write_json_lines(target, copies)


def _time(options: Options, report: Report, folder: Path, model: str, data: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from nait_store.capture.models import load_model
    from nait_store.capture.session import CaptureSession
    from nait_store.schemas.capture import Feature

    session = CaptureSession.open(model, features=[Feature.MEAN], device=options.extra.device)
    layers = session.layers[: max(1, len(session.layers) // 2)]
    half = CaptureSession.open(model, features=[Feature.MEAN], device=options.extra.device, layers=layers)
    device = session.device
    on_gpu = device.startswith("cuda")
    batches = laid_out(session, data)
    store = folder / "store"

    def whole() -> None:
        ingest_into(session, data, store)

    def captured() -> None:
        for _ in session.capture(_prepared(session, data)):
            pass

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    usual = AutoModelForCausalLM.from_pretrained(model).eval().to(device)
    processor_seconds: dict[str, list[float]] = {}
    cases = {
        "bare forward": bare_forward(load_model(model, device=device).model, session, batches),
        "capture": captured,
        "ingest": whole,
        "ingest, lower half": lambda: ingest_into(half, data, store),
        "the usual script": usual_script(
            usual, tokenizer, data, folder / "script.pt", session.settings.max_length_tokens
        ),
    }
    timings = interleave(
        {name: _metered(name, case, processor_seconds) for name, case in cases.items()},
        options.rounds,
        before=lambda _name: shutil.rmtree(store, ignore_errors=True),
    )
    processor = {name: Timing(name, tuple(processor_seconds[name][-options.rounds :])) for name in cases}
    n_tokens = sum(int(arguments["input_ids"].numel()) for arguments in batches)
    title = (
        f"{sum(1 for _ in data.open()):,} samples, {n_tokens:,} tokens, layout {session.environment.batch_layout}, "
        f"{device if on_gpu else f'{torch.get_num_threads()} threads'}"
    )
    note = "capture: read, render, tokenise, forward, reduce. ingest: capture, write, digest, commit."
    report.timings(title, timings, reference="bare forward", note=note)
    report.timings("Processor time of the same runs, all threads", processor, reference="bare forward")
    report.limit(
        "ingest / bare forward", "≤", 1.10 if on_gpu else 1.05, ratio(timings["ingest"], timings["bare forward"])
    )
    if not on_gpu:  # there the processor's work is beside the GPU's
        report.limit("the same, processor time", "≤", 1.05, ratio(processor["ingest"], processor["bare forward"]))
    report.limit(
        "the usual script / ingest", "≥", 5 if on_gpu else 2.2, ratio(timings["the usual script"], timings["ingest"])
    )


def _metered(name: str, case: Callable[[], object], processor_seconds: dict[str, list[float]]) -> Callable[[], None]:
    """Note the processor time of every run of a case, warm-ups first."""

    def run_case() -> None:
        began = time.process_time()
        case()
        processor_seconds.setdefault(name, []).append(time.process_time() - began)

    return run_case


def bare_forward(model: Any, session: Any, batches: list[dict[str, Any]]) -> Callable[[], None]:
    """Return what runs a model's decoder alone, without hooks, on batches that :func:`laid_out` gave.

    Parameters
    ----------
    model
        Another copy of the session's; it is set up for the session's layout.
    """
    import torch

    from nait_store.capture.attention import FLASH_ATTENTION, PACKED_ATTENTION
    from nait_store.capture.hook_points import find_decoder
    from nait_store.capture.layouts import ON_ONE_ROW, Layout

    layout = Layout(session.environment.batch_layout)
    if layout in ON_ONE_ROW:
        model.set_attn_implementation(FLASH_ATTENTION if layout is Layout.FLASH else PACKED_ATTENTION)
    decoder = find_decoder(model)

    def bare() -> None:
        with torch.inference_mode():
            for arguments in batches:
                decoder(**arguments, use_cache=False)
        synchronize(session.device)

    return bare


def synchronize(device: str) -> None:
    """Wait for what a CUDA device has been told to do."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _prepared(session: Any, data: Path) -> list[Any]:
    from nait_store.capture.conversations import make_sample
    from nait_store.capture.readers import read_records

    records = read_records(str(data), on_error="stop", rejects=lambda _rejected: None)
    return session.renderer.prepare([make_sample(record, field_map=None, id_field=None) for record in records])


def laid_out(session: Any, data: Path) -> list[dict[str, Any]]:
    """Arguments of the forward passes that a capture of the file makes."""
    from nait_store.capture.layouts import Layout, lay_out

    batches = []
    for batch in session.capture(_prepared(session, data)):
        inputs = lay_out(
            Layout(session.environment.batch_layout),
            [sample.token_ids for sample in batch.samples],
            pad_token_id=0,
            device=session.device,
        )
        batches.append(inputs.arguments)
    return batches


def ingest_into(session: Any, data: Path, store: Path) -> Any:
    """Run a whole ingest, but for loading the model."""
    from nait_store.ingest.job import ingest
    from nait_store.ingest.requests import IngestRequest
    from nait_store.schemas.capture import Feature
    from nait_store.storage.location import Location

    request = IngestRequest(sources=(str(data),), set_name="pool", features=(Feature.MEAN,))
    return ingest(Location(str(store)), session, request)


def usual_script(model: Any, tokenizer: Any, data: Path, target: Path, max_length: int) -> Callable[[], None]:
    """Return the script everyone writes, with the model loaded."""
    import torch

    def script() -> None:
        texts = []
        for line in data.open(encoding="utf-8"):
            record = json.loads(line)
            texts.append("\n".join(filter(None, (record.get(key) for key in _TEXT_KEYS))))
        features = []
        with torch.no_grad():
            for start in range(0, len(texts), _BATCH):
                encoded = tokenizer(
                    texts[start : start + _BATCH],
                    padding=True,
                    truncation=True,
                    max_length=max_length,
                    return_tensors="pt",
                    return_token_type_ids=False,
                ).to(model.device)
                output = model(**encoded, output_hidden_states=True)
                hidden = torch.stack(output.hidden_states[1:], 1)  # [B, L, T, H]
                mask = encoded["attention_mask"][:, None, :, None]
                features.append(((hidden * mask).sum(2) / mask.sum(2)).cpu())
        torch.save(torch.cat(features), target)

    return script


def _memory(options: Options, report: Report, folder: Path, model: str, data: Path, n_samples: int) -> None:
    rounds = 1 if options.toy else 3
    peaks: dict[int, list[float]] = {1: [], 4: []}
    parts = {times: spread_records(data, folder / f"part{times}.jsonl", times * n_samples) for times in peaks}
    for _ in range(rounds):
        for times, part in parts.items():
            store = folder / f"store{times}"
            shutil.rmtree(store, ignore_errors=True)
            fresh = run_fresh(f"{_MODULE}:ingest_fresh", model, str(part), str(store))
            peaks[times].append(float(fresh.peak_bytes))
    rows = [
        [f"{times * n_samples:,} samples", f"{sorted(values)[len(values) // 2] / 2**20:,.0f} MiB"]
        for times, values in peaks.items()
    ]
    report.table("Peak memory of an ingest in a fresh process", ["what", "peak"], rows)
    report.limit("peak memory at 4× the samples / 1×", "≤", 1.10, ratio_of(peaks[4], peaks[1]))


def ingest_fresh(model: str, data: str, store: str) -> int:
    """Ingest in a process of its own; returns the samples added."""
    from nait_store.capture.session import CaptureSession
    from nait_store.schemas.capture import Feature

    session = CaptureSession.open(model, features=[Feature.MEAN])
    return int(ingest_into(session, Path(data), Path(store)).n_added)


if __name__ == "__main__":
    main()
