"""What each stored dtype costs and brings: fidelity of scores, bytes, and the speed of a scan.

Fidelity, on real activations (``--data`` with ``pool.jsonl`` and ``in_domain_*.jsonl``, ``--model`` a causal LM; at
``--toy`` size the demonstration's): the pool is captured once and kept as float32, and converted to each dtype. Scores
of each are compared with those of the float32 features in float64, computed without the store's scan. Speed, on random
numbers: a scan of the same set in each dtype against ``torch.from_numpy(memmap[block]).float() @ V.T`` over a
``.npy`` of float16.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nait_store
from benchmarks.harness import Options, Report, interleave, ratio, run, workspace
from benchmarks.recipes import demo_corpus
from benchmarks.scan import Size, blocks, random_targets, scan_to_memory, write_npy, write_set
from nait_store.activations.conversion import convert
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.demo.files import MODEL
from nait_store.schemas.capture import StoredDtype
from nait_store.scoring.scan import score_segments
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location
from nait_store.store.facade import Store
from nait_store.testing.scores import plain_projections

FULL = Size(1024, 32, 11008)  # 0.7 GB as float16: what 1,024 samples of a 7B model take
TOY = Size(128, 2, 704)
PROFILE_COUNTS = (1, 32)
TOP_SHARE = 0.1
PAPER = "nait-paper"
SMALLER = (StoredDtype.FLOAT16, StoredDtype.BFLOAT16, StoredDtype.INT8)


def body(options: Options, report: Report) -> None:
    """Fidelity, then speed."""
    data, model = options.extra.data, options.extra.model
    if options.toy or (data is not None and model is not None):
        with workspace(options, 2 << 30) as folder:
            fidelity(folder, options, report)
    else:
        why = "no --data and --model given: fidelity needs real data and a real model"
        report.table("Fidelity: skipped", ["why"], [[why]])
    size = TOY if options.toy else FULL
    if options.extra.rows:
        size = Size(options.extra.rows, size.n_layers, size.n_neurons)
    with workspace(options, 5 * size.n_bytes) as folder:
        speed(folder, size, options, report)


@dataclass(frozen=True)
class Agreement:
    """How scores of a dtype agree with those of float32 in float64.

    Attributes
    ----------
    spearman
        Rank correlation.
    overlap
        Share of the best tenth that is the same.
    largest_error
        Largest |difference|, in standard deviations of the exact scores.
    largest_relative_error
        Largest |difference| / |exact score|, among samples whose score is at least a standard deviation.
    """

    spearman: float
    overlap: float
    largest_error: float
    largest_relative_error: float

    @classmethod
    def of(cls, scores: NDArray[np.float64], exact: NDArray[np.float64]) -> Agreement:
        """Compare two columns of scores of the same samples."""
        n_top = max(1, round(TOP_SHARE * len(exact)))
        best = [set(np.argsort(-column, kind="stable")[:n_top].tolist()) for column in (scores, exact)]
        ranks = [np.argsort(np.argsort(column, kind="stable"), kind="stable") for column in (scores, exact)]
        error = np.abs(scores - exact)
        large = np.abs(exact) >= exact.std()
        return cls(
            float(np.corrcoef(*ranks)[0, 1]),
            len(best[0] & best[1]) / n_top,
            float(error.max() / exact.std()),
            float((error[large] / np.abs(exact[large])).max()),
        )


def fidelity(folder: Path, options: Options, report: Report) -> None:
    """Scores of several profiles in every dtype, on activations of a real model."""
    store = nait_store.open(str(folder / "store"), create=True)
    targets = capture(store, folder, options)
    reference = store.sets.open("pool")
    exact = {name: exact_scores(reference, target) for name, target in targets.items()}
    sizes = {StoredDtype.FLOAT32: array_bytes(reference)}
    rows = []
    worst: dict[str, float] = {}  # of int8, by the profiles' recipe
    worst_own_error: dict[StoredDtype, float] = {}
    for dtype in SMALLER:
        store.sets.restore(reference.reference)
        store.sets.convert("pool", dtype.value)
        version = store.sets.open("pool")
        sizes[dtype] = array_bytes(version)
        for name, target in targets.items():
            scored = score_segments([(segment, [target]) for segment in version.segments])
            found = np.concatenate([scores.scores for _, _, scores in scored])
            agreement = Agreement.of(found, exact[name])
            own_error = Agreement.of(found, exact_scores(version, target)).largest_error
            worst_own_error[dtype] = max(worst_own_error.get(dtype, 0.0), own_error)
            if dtype is StoredDtype.INT8:
                recipe = PAPER if name.endswith(PAPER) else "default"
                worst[recipe] = min(worst.get(recipe, 1.0), agreement.overlap)
            rows.append(
                [
                    dtype.value,
                    name,
                    f"{agreement.spearman:.6f}",
                    f"{agreement.overlap:.4f}",
                    f"{agreement.largest_error:.1e}",
                    f"{agreement.largest_relative_error:.1e}",
                    f"{own_error:.1e}",
                ]
            )
    report.table(
        f"Fidelity, {reference.n_samples:,} samples × {len(reference.layers)} layers × "
        f"{reference.record.n_neurons:,} neurons",
        (
            "dtype",
            "profile",
            "Spearman",
            "same best 10 %",
            "largest error, sd",
            "largest relative error",
            "the kernels' part, sd",
        ),
        rows,
        "Against float64 over the float32 features; the relative error among scores of at least a standard deviation. "
        "The kernels' part is the largest difference to float64 over the stored numbers.",
    )
    half = sizes[StoredDtype.FLOAT16]
    report.table(
        "Bytes of the arrays, norms and scales included",
        ("dtype", "MB", "of float16"),
        [[dtype.value, f"{n_bytes / 1e6:,.2f}", f"{n_bytes / half:.3f}"] for dtype, n_bytes in sizes.items()],
    )
    report.limit("bytes of int8 against float16", "≤", 0.51, sizes[StoredDtype.INT8] / half)
    for dtype, error in worst_own_error.items():
        report.limit(f"the kernels' part, {dtype.value}, in millionths of an sd", "≤", 100, 1e6 * error, "")
    for recipe, overlap in worst.items():
        report.limit(f"same best 10 %, int8, the worst profile of the {recipe} recipe", "≥", 0.985, overlap, "")


def capture(store: Store, folder: Path, options: Options) -> dict[str, ScoringTarget]:
    """Ingest the pool and the domains as float32; returns a target for each domain and kind of profile."""
    data, model, limit = options.extra.data, options.extra.model, options.extra.limit
    if data is None or model is None:
        corpus = demo_corpus(folder)
        pool, model = corpus.halves[0], MODEL
        domains = {domain.name: domain.path for domain in corpus.domains}
    else:
        pool = data / "pool.jsonl"
        domains = {path.stem.removeprefix("in_domain_"): path for path in sorted(data.glob("in_domain_*.jsonl"))}
    limit = 200 if options.toy else limit
    features = ("mean", "drift")
    store.ingest(str(pool), set="pool", model=str(model), features=features, dtype="float32", limit=limit)
    targets = {}
    for name, path in domains.items():
        store.ingest(str(path), set=name, model=str(model), features=features, dtype="float32", limit=limit)
        for kind, choices in {
            "dot": {"metric": "dot"},
            "cosine": {"metric": "cosine"},
            PAPER: {"recipe": PAPER},
        }.items():
            profile, _ = store.profiles.build(f"{name}-{kind}", source=name, **choices)  # type: ignore[arg-type]
            targets[f"{name}, {kind}"] = profile.target()
    return targets


def exact_scores(version: SetVersion, target: ScoringTarget) -> NDArray[np.float64]:
    """Scores in float64, without the scan."""
    parts = [plain_projections(segment, target).sum(axis=1) for segment in version.segments]
    return np.concatenate(parts)


def array_bytes(version: SetVersion) -> int:
    """Bytes of a version's arrays, without samples and documents."""
    return sum(file.size_bytes for segment in version.segments for file in segment.record.files if "/c/" in file.path)


def speed(folder: Path, size: Size, options: Options, report: Report) -> None:
    """A scan of the same numbers in each dtype, against the script over float16."""
    import torch

    versions = {}
    for dtype in SMALLER:
        location = Location(str(folder / dtype.value))
        versions[dtype] = write_set(location, size)
        if dtype is not StoredDtype.FLOAT16:
            convert(ActivationSets(location), "pool", dtype)
            versions[dtype] = ActivationSets(location).open("pool")
    memmap = write_npy(versions[StoredDtype.FLOAT16], folder / "activations.npy")
    script = "memmap + torch .float() @"
    for n_profiles in PROFILE_COUNTS:
        targets = random_targets(n_profiles, size)
        V = torch.from_numpy(np.stack([target.directions.reshape(-1) for target in targets]).T.copy())  # [L·J, P]

        def torch_script(V: torch.Tensor = V) -> NDArray[Any]:
            return np.concatenate([(torch.from_numpy(block).float() @ V).numpy() for block in blocks(memmap)])

        def scan_of(dtype: StoredDtype, targets: list[ScoringTarget] = targets) -> Callable[[], NDArray[Any]]:
            return lambda: scan_to_memory(versions[dtype], targets)

        cases: dict[str, Callable[[], object]] = {script: torch_script}
        cases |= {f"scan, {dtype.value}": scan_of(dtype) for dtype in SMALLER}
        expected = torch_script()
        for dtype in SMALLER:
            tolerance = {StoredDtype.FLOAT16: 1e-3, StoredDtype.BFLOAT16: 0.05, StoredDtype.INT8: 0.1}[dtype]
            if np.abs(scan_of(dtype)() - expected).max() > tolerance * expected.std():
                raise ArithmeticError(f"the scan of {dtype.value} and the script disagree")
        times = interleave(cases, options.rounds)
        title = "1 profile" if n_profiles == 1 else f"{n_profiles} profiles"
        report.timings(
            f"{title}, {size.n:,} samples × {size.n_layers} layers × {size.n_neurons:,} neurons, "
            f"{size.n_bytes / 1e9:.2f} GB as float16",
            times,
            reference=script,
            work_bytes=size.n_bytes,
        )
        for dtype, must in {StoredDtype.FLOAT16: (8, 3), StoredDtype.INT8: (8, 8)}.items():
            speedup = ratio(times[script], times[f"scan, {dtype.value}"])
            report.limit(f"{dtype.value}, {title}, against memmap + torch", "≥", must[n_profiles > 1], speedup)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder with pool.jsonl and in_domain_*.jsonl")
    parser.add_argument("--model", type=Path, help="folder of a causal language model")
    parser.add_argument("--limit", type=int, default=2000, help="records of the pool and of each domain (default 2000)")
    parser.add_argument("--rows", type=int, help=f"samples to time with (default {FULL.n})")


if __name__ == "__main__":
    run(__doc__, body, packages=("numba", "torch", "zarr", "pyarrow"), add_arguments=add_arguments)
