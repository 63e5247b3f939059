"""Scoring on a CUDA device, beside this machine's cores and the script that copies block by block.

Warm page cache, no sidecars. The script goes over one ``.npy`` of float16 [N, L·J]:
``torch.from_numpy(memmap[block]).cuda().float() @ V.T``. All of them read from the host's memory, so what a device can
win is arithmetic: with one profile there is hardly any. Without a CUDA device only the toy size runs, on torch's CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Options, Report, interleave, ratio, run, workspace
from benchmarks.scan import FULL, TOY, Size, blocks, random_targets, scan_to_memory, write_npy, write_set
from nait_store.activations.set_version import SetVersion
from nait_store.scoring.torch_kernels import TorchKernels
from nait_store.storage.location import Location

PROFILE_COUNTS = (1, 32, 128)


def body(options: Options, report: Report) -> None:
    """Write a set, and score it each way."""
    import torch

    there = torch.cuda.is_available()
    if not there and not options.toy:
        report.table("Scoring on a CUDA device", ["skipped"], [["there is no CUDA device"]])
        return
    size = TOY if options.toy else FULL
    if options.extra.rows:
        size = Size(options.extra.rows, size.n_layers, size.n_neurons)
    with workspace(options, 2 * size.n_bytes) as folder:
        version = write_set(Location(str(folder / "store")), size)
        memmap = write_npy(version, folder / "activations.npy")
        for n_profiles in PROFILE_COUNTS:
            measure(version, memmap, n_profiles, "cuda" if there else "cpu", options, report)


def measure(
    version: SetVersion, memmap: NDArray[Any], n_profiles: int, device: str, options: Options, report: Report
) -> None:
    """Time one number of profiles."""
    import torch

    size = Size(version.n_samples, len(version.layers), version.record.n_neurons)
    targets = random_targets(n_profiles, size)
    V = torch.from_numpy(np.stack([target.directions.reshape(-1) for target in targets]).T.copy()).to(device)
    kernels = TorchKernels(device)

    def script() -> NDArray[Any]:
        return np.concatenate(
            [(torch.from_numpy(block).to(device).float() @ V).cpu().numpy() for block in blocks(memmap)]
        )

    on_cores, on_device, expected = (
        scan_to_memory(version, targets),
        scan_to_memory(version, targets, kernels),
        script(),
    )
    for found in (on_device, expected):
        if np.abs(found - on_cores).max() > 1e-3 * on_cores.std():
            raise ArithmeticError("two ways to score disagree")
    cases: dict[str, Callable[[], object]] = {
        "the script": script,
        "our scan, cores": lambda: scan_to_memory(version, targets),
        f"our scan, {device}": lambda: scan_to_memory(version, targets, kernels),
    }
    timings = interleave(cases, options.rounds)
    title = "1 profile" if n_profiles == 1 else f"{n_profiles} profiles"
    name = torch.cuda.get_device_name() if device == "cuda" else "torch's CPU"
    report.timings(
        f"{title}, {size.n:,} samples × {size.n_layers} layers × {size.n_neurons:,} neurons, float16, "
        f"{size.n_bytes / 1e9:.2f} GB, {name}",
        timings,
        reference="the script",
        work_bytes=size.n_bytes,
    )
    ours = timings[f"our scan, {device}"]
    report.limit(f"the script / our scan on the device, {title}", "≥", 1.0, ratio(timings["the script"], ours))


def main(argv: list[str] | None = None) -> None:
    run(__doc__ or "", body, packages=("torch",), add_arguments=_arguments, argv=argv)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"samples (default {FULL.n:,})")


if __name__ == "__main__":
    main()
