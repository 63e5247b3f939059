"""The quality card of a profile: time and memory at L=32, J=11008, M=512, beside building every draw anew.

The set is synthetic, as that of `profile_build`, and so is the one to compare with; both are written first, untimed.
Each card is measured in a fresh process from the stored sets, page cache warm: with the build that it belongs to, and
by itself (`profile card`). The other way is measured on one layer: the same directions of draws, halves and folds,
each built from its own rows by the function that builds profiles.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from benchmarks.harness import Options, Report, interleave, ratio, ratio_of, run, run_fresh, workspace
from benchmarks.profile_build import RECIPES, low_rank, write_set

AGREE = 1e-3
"""Largest distance of a coordinate between directions made both ways."""


def body(options: Options, report: Report) -> None:
    n_layers, n_neurons, n_samples = (2, 256, 48) if options.toy else (32, 11008, 512)
    with workspace(options, 6 * 2 * n_layers * n_neurons * n_samples) as folder:
        run_fresh("benchmarks.profile_card:write_sets", str(folder), n_layers, n_neurons, n_samples)
        rounds = max(1, options.rounds // 3)
        rows = []
        for recipe in RECIPES:
            cases: dict[str, list] = {"build without a card": [], "build with its card": [], "card alone": []}
            for _ in range(rounds):
                for name, runs in cases.items():
                    runs.append(run_fresh("benchmarks.profile_card:measure", str(folder), recipe, name))
                    if name != "build without a card" and not 0.0 < runs[-1].result <= 1.0:
                        raise RuntimeError(f"{name}: an area under the curve of {runs[-1].result}")
            for name, runs in cases.items():
                seconds = ratio_of([one.seconds for one in runs], [1.0] * rounds)
                peak = ratio_of([one.peak_bytes / 1e9 for one in runs], [1.0] * rounds)
                rows.append([recipe, name, f"{seconds.median:.2f} s", f"{peak.median * 1e3:,.0f} MB"])
                if name == "card alone":
                    report.limit(f"card, recipe {recipe}", "≤", 60.0, seconds, " s")
                    report.limit(f"peak memory of the process, recipe {recipe}", "≤", 2.0, peak, " GB")
        report.table(
            f"From stored sets: L={n_layers}, J={n_neurons}, M={n_samples}, {n_samples} samples to compare with",
            ["recipe", "what", "time", "peak of the process"],
            rows,
            f"Median of {rounds} fresh processes each.",
        )
    compare(report, n_neurons, n_samples)


def compare(report: Report, n_neurons: int, n_samples: int) -> None:
    """One layer's draws from one Gram matrix, and each built from its own rows."""
    from nait_store.registry.cards.draws import DrawPlan
    from nait_store.registry.cards.subset_directions import SubsetDirections
    from nait_store.registry.directions import principal_direction
    from nait_store.registry.recipes import choose_recipe

    X = low_rank(np.random.default_rng(1), n_samples, n_neurons)
    recipe = choose_recipe("default")
    plan = DrawPlan.of([f"s{i}" for i in range(n_samples)])
    profile = principal_direction(X, center=recipe.center).direction
    found: dict[str, np.ndarray] = {}

    def anew() -> None:
        made = [principal_direction(X[subset], center=recipe.center).direction for subset in plan.subsets]
        found["anew"] = np.stack(made)

    def by_gram_matrix() -> None:
        directions = SubsetDirections(X, recipe, None, profile)
        coefficients = np.stack([directions.coefficients(subset) for subset in plan.subsets])
        found["coefficients"] = coefficients
        found["ours"] = directions.vectors(coefficients)

    timings = interleave({"each from its rows": anew, "one Gram matrix": by_gram_matrix}, 3)
    difference = float(np.abs(found["anew"] - found["ours"]).max())
    if difference > AGREE:
        raise RuntimeError(f"the two ways give other directions: a coordinate differs by {difference:.1e}")
    report.timings(
        f"One layer in memory: {len(plan.subsets)} directions of draws, J={n_neurons}, M={n_samples}",
        timings,
        reference="each from its rows",
        note=f"Largest difference of a coordinate: {difference:.1e}. Each from its rows / ours: "
        f"{ratio(timings['each from its rows'], timings['one Gram matrix'])}.",
    )


def write_sets(folder: str, n_layers: int, n_neurons: int, n_samples: int) -> None:
    """Make a store with the in-domain set and the one to compare with."""
    import nait_store

    nait_store.open(folder, create=True)
    for seed, name in enumerate(("in-domain", "pool")):
        write_set(folder, n_layers, n_neurons, n_samples, name, seed)


def measure(folder: str, recipe: str, what: str) -> float:
    """Do one of the cases, and return the area under the curve that it measured, 0 where it measured none."""
    import nait_store

    store = nait_store.open(folder)
    if what == "card alone":
        card = store.profiles.card("bench", against="pool").quality
    else:
        if (Path(folder) / "profiles").exists():
            shutil.rmtree(Path(folder) / "profiles")
        profile, created = store.profiles.build(
            "bench", source="in-domain", recipe=recipe, card_against="pool", quality_card=what == "build with its card"
        )
        if not created:
            raise RuntimeError("the build was a no-op: nothing was measured")
        card = profile.quality_card()
    return 0.0 if card is None or card.separation is None else card.separation.auc


if __name__ == "__main__":
    run(__doc__, body, packages=("scipy",))
