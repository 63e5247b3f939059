"""Selections by eight profiles with quotas out of a million samples, each in a fresh process, beside plain NumPy.

Scores are stored beforehand, as an ingest leaves them. A selection opens the store, reads the scores and samples,
ranks, drops duplicates, fills the quotas, spells its query and returns ids and scores; every case must choose what the
reference chooses: NumPy's stable sorts and a loop, over the same scores already in memory, without the store. Of the
duplicates the reference knows which they are: one text in ten is another one's but for a word, one in fifty is another
one's, and their activations are nearly alike. The store is to find out.

Cases beyond look at what is usually left alone: every text, or the activations of all. Of the spread ones is checked
that they do better than the best by rank, at what they are for.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nait_store
from benchmarks.harness import Options, Report, run, run_fresh, workspace
from benchmarks.large_pool import BYTES_PER_ROW, build_pool
from benchmarks.varied_texts import COPY_EVERY, VariedTexts, originals
from nait_store.registry.profiles import ProfileRegistry
from nait_store.registry.recipes import RECIPES
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location

ROWS, TOY_ROWS = 1_000_000, 4_000
SEGMENTS = 8
PROFILES = tuple(f"domain-{i}" for i in range(8))
QUOTAS = {"alpaca": 50, "code": 20}
TOP_PERCENT = 10
MOST_SECONDS, MOST_GB = 20.0, 2.0
CASES: dict[str, dict[str, Any]] = {
    "union": {"combine": "union"},
    "union, quotas": {"combine": "union", "quota": True},
    "sum, quotas": {"combine": "sum", "quota": True},
    "min, quotas": {"combine": "min", "quota": True},
    "rrf, quotas": {"combine": "rrf", "quota": True},
    "union, quotas, no near duplicates": {"combine": "union", "quota": True, "drop_duplicates": "near"},
    "one profile, a budget of tokens": {"profiles": 1, "budget_tokens": 5_000_000},
}
BEYOND: dict[str, dict[str, Any]] = {
    "union, all without near duplicates": {"combine": "union", "top": 100, "drop_duplicates": "near"},
    "union, top 1 %, no duplicates by activations": {"combine": "union", "top": 1, "drop_duplicates": "cosine"},
    "one profile, 1,000 by k-center among all": {"profiles": 1, "diversity": "k-center"},
    "one profile, 1,000 by facility location among all": {"profiles": 1, "diversity": "facility-location"},
}
SPREAD = 1_000
N_NEURONS = 256  # so that there are sketches
_LOOKED_AT = 5_000


def body(options: Options, report: Report) -> None:
    """Build the store, select in fresh processes, compare with NumPy."""
    n_rows = options.extra.rows or (TOY_ROWS if options.toy else ROWS)
    n_rows -= n_rows % (SEGMENTS * COPY_EVERY)
    rows, slowest, largest = [], 0.0, 0.0
    with workspace(options, n_rows * (6 * BYTES_PER_ROW + 4 * N_NEURONS)) as folder:
        url = str(folder / "store")
        build_store(url, n_rows)
        pool = read_pool(url)
        rounds = 1 if options.toy else min(options.rounds, 3)
        for name, case in (CASES | BEYOND).items():
            if options.extra.case and options.extra.case not in name:
                continue
            runs = [run_fresh("benchmarks.strategies:select", url, case) for _ in range(rounds)]
            for one in runs:
                if case.get("diversity"):
                    check_spread(name, url, case, pool, one.result["ids"])
                elif one.result["ids"] != choose(pool, case):
                    raise ArithmeticError(f"{name}: the store and NumPy choose different samples")
            seconds = sorted(one.seconds for one in runs)
            peak = max(one.peak_bytes for one in runs)
            largest = max(largest, peak)
            if name in CASES:
                slowest = max(slowest, seconds[-1])
            chosen = len(runs[0].result["ids"])
            cpu = min(one.result["cpu_seconds"] for one in runs)
            cells = (f"{seconds[len(seconds) // 2]:.2f}", f"{seconds[0]:.2f}–{seconds[-1]:.2f}", f"{cpu:.2f}")
            rows.append((name, f"{chosen:,}", *cells, f"{peak / 1e6:,.0f}"))
    report.table(
        f"{len(PROFILES)} profiles, {n_rows:,} candidates, top {TOP_PERCENT} %, in a fresh process each",
        ("selection", "chosen", "seconds, median", "fastest–slowest", "CPU seconds", "peak memory, MB"),
        rows,
    )
    report.limit(f"the slowest selection up to “{list(CASES)[-1]}”", "≤", MOST_SECONDS, slowest, " s")
    report.limit("the largest process", "≤", MOST_GB, largest / 1e9, " GB")


def build_store(url: str, n_rows: int) -> None:
    """Write the set ``pool``, profiles of different rows of it, and the scores."""
    store = nait_store.open(url, create=True)
    version = build_pool(Location(url), "pool", n_rows, SEGMENTS, n_neurons=N_NEURONS, samples=VariedTexts())
    rng = np.random.default_rng(1)
    for name in PROFILES:
        in_domain = {0: np.sort(rng.choice(n_rows // SEGMENTS, 64, replace=False))}
        ProfileRegistry(Location(url)).build(
            name,
            version,
            recipe=RECIPES["default"],
            rows=in_domain,
            where=None,
            limit=None,
            seed=0,
            background=None,
            quality_card=False,
        )
    store.score("pool", *PROFILES)


def select(url: str, case: dict[str, Any]) -> dict[str, Any]:
    """What is timed: from opening the store to ids."""
    started = time.process_time()
    names = PROFILES[: case.get("profiles", len(PROFILES))]
    quota = "source=" + ",".join(f"{value}:{percent}%" for value, percent in QUOTAS.items())
    budget_tokens = case.get("budget_tokens")
    diversity = case.get("diversity")
    top = min(SPREAD, nait_store.open(url).sets.open("pool").n_samples // 4) if diversity else None
    selection = nait_store.open(url).select(
        "pool",
        profile=names,
        combine=case.get("combine"),
        top=top or (None if budget_tokens else f"{case.get('top', TOP_PERCENT)}%"),
        diversity=diversity,
        among="100%" if diversity else None,
        quota=quota if case.get("quota") else None,
        budget_tokens=budget_tokens,
        drop_duplicates=case.get("drop_duplicates", ()),
    )
    return {"ids": selection.rows.column("sample_id").to_pylist(), "cpu_seconds": time.process_time() - started}


def read_pool(url: str) -> dict[str, NDArray[Any]]:
    """Ids, tokens, sources and scores [P, n] in the order of ids."""
    store = nait_store.open(url)
    samples = store.sql(
        "SELECT sample_id, source_index, n_tokens, source FROM samples('pool') ORDER BY sample_id"
    ).arrow()
    scores = [
        store.sql(f"SELECT score FROM alignment('pool', '{name}') ORDER BY sample_id").arrow()[0].to_numpy()
        for name in PROFILES
    ]
    columns = {name: samples.column(name).to_numpy(zero_copy_only=False) for name in samples.column_names}
    return {**columns, "scores": np.stack(scores)}


def choose(pool: dict[str, NDArray[Any]], case: dict[str, Any]) -> list[str]:
    """What must come out."""
    scores = pool["scores"][: case.get("profiles", len(PROFILES))]
    n = scores.shape[1]
    order = _order(scores, case.get("combine"))
    if case.get("drop_duplicates"):
        texts = originals(pool["source_index"])[order]
        order = order[np.sort(np.unique(texts, return_index=True)[1])]
    if budget := case.get("budget_tokens"):
        taken = order[np.cumsum(pool["n_tokens"][order]) <= budget]
        return [str(one) for one in pool["sample_id"][taken]]
    top = -(-n * case.get("top", TOP_PERCENT) // 100)
    if not case.get("quota"):
        return [str(one) for one in pool["sample_id"][order[:top]]]
    left = {value: top * percent // 100 for value, percent in QUOTAS.items()}
    left["others"] = top - sum(left.values())
    taken = []
    for i in order:
        group = pool["source"][i] if pool["source"][i] in QUOTAS else "others"
        if left[group]:
            left[group] -= 1
            taken.append(i)
    return [str(one) for one in pool["sample_id"][taken]]


def check_spread(name: str, url: str, case: dict[str, Any], pool: dict[str, NDArray[Any]], ids: list[str]) -> None:
    """Compare with as many of the best by rank: how far the farthest of some samples is, or how near all are."""
    version = nait_store.open(url).sets.open("pool")
    A = np.concatenate([one.read(Feature.MEAN)[:, -1] for one in version.segments])
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    row_of = {sample_id: row for row, sample_id in enumerate(version.sample_ids())}
    best = pool["sample_id"][_order(pool["scores"][:1], None)[: len(ids)]]
    looked_at = A[:: max(1, len(A) // _LOOKED_AT)]
    nearest = [(looked_at @ A[[row_of[one] for one in some]].T).max(axis=1) for some in (ids, best)]
    better = [one.min() if case["diversity"] == "k-center" else one.mean() for one in nearest]
    if len(set(ids)) != len(ids) or not better[0] > better[1]:
        raise ArithmeticError(f"{name}: {better[0]} is no better than {better[1]} of the best by rank")


def _order(scores: NDArray[np.float64], combine: str | None) -> NDArray[np.int64]:
    """Candidates, best first; they are in the order of ids, so that stable sorts break ties by id."""
    if combine in (None, "sum", "min"):
        z = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
        return np.argsort(-(z.min(axis=0) if combine == "min" else z.sum(axis=0)), kind="stable")
    order = np.argsort(-scores, axis=1, kind="stable")
    if combine == "union":
        turns = order.T.ravel()  # every profile's best, then every profile's second best
        return turns[np.sort(np.unique(turns, return_index=True)[1])]
    total = np.zeros(scores.shape[1])
    for row in order:
        total[row] += 1.0 / (60 + np.arange(1, len(row) + 1))
    return np.argsort(-total, kind="stable")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"samples (default {ROWS:,}, toy {TOY_ROWS:,})")
    parser.add_argument("--case", help="only the cases with this in their names")


if __name__ == "__main__":
    run(__doc__, body, packages=("duckdb", "pyarrow", "rensa"), add_arguments=_arguments)
