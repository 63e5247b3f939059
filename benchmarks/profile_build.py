"""Building a profile: time and memory at L=32, J=11008, M=512, beside scikit-learn's PCA.

The set is synthetic (low-rank activations in fp16) and written first, untimed. The build runs in a fresh process
from the stored set, page cache warm, payload and commit included; its peak memory is that of the process, less
what it took to import the package. The quality card, which a build makes as well unless told not to, is left to
benchmarks/profile_card.py. The competitor gets the arrays in memory.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from benchmarks.harness import Options, Report, interleave, ratio, ratio_of, run, run_fresh, workspace

RECIPES = ("default", "nait-paper")


def main(argv: list[str] | None = None) -> None:
    run(__doc__ or "", body, packages=("scipy", "scikit-learn"), argv=argv)


def body(options: Options, report: Report) -> None:
    n_layers, n_neurons, n_samples = (2, 256, 48) if options.toy else (32, 11008, 512)
    with workspace(options, 3 * 2 * n_layers * n_neurons * n_samples) as folder:
        run_fresh("benchmarks.profile_build:write_set", str(folder), n_layers, n_neurons, n_samples)
        rounds = max(1, options.rounds // 3)
        rows = []
        for recipe in RECIPES:
            builds = [run_fresh("benchmarks.profile_build:build", str(folder), recipe) for _ in range(rounds)]
            seconds = ratio_of([b.seconds for b in builds], [1.0] * rounds)
            grown = ratio_of([(b.peak_bytes - b.baseline_bytes) / 1e9 for b in builds], [1.0] * rounds)
            whole = ratio_of([b.peak_bytes / 1e9 for b in builds], [1.0] * rounds)
            rows.append(
                [recipe, f"{seconds.median:.2f} s", f"{grown.median * 1e3:,.0f} MB", f"{whole.median * 1e3:,.0f} MB"]
            )
            report.limit(f"build, recipe {recipe}", "≤", 10.0, seconds, " s")
            report.limit(f"peak memory of the process, recipe {recipe}", "≤", 1.5, whole, " GB")
        report.table(
            f"Build from a stored set: L={n_layers}, J={n_neurons}, M={n_samples}",
            ["recipe", "time", "memory above imports", "peak of the process"],
            rows,
            f"Median of {rounds} fresh processes each.",
        )
    compare(report, n_neurons, n_samples)


def compare(report: Report, n_neurons: int, n_samples: int) -> None:
    """One layer against scikit-learn, which would take minutes for all of them."""
    from sklearn.decomposition import PCA

    from nait_store.registry.directions import principal_direction

    X = low_rank(np.random.default_rng(1), n_samples, n_neurons)
    found = {}

    def ours() -> None:
        found["ours"] = principal_direction(X, center=True).direction

    def sklearn_full() -> None:
        found["full"] = PCA(n_components=1, svd_solver="full").fit(X).components_[0]

    def sklearn_arpack() -> None:
        found["arpack"] = PCA(n_components=1, svd_solver="arpack", random_state=0).fit(X).components_[0]

    def sklearn_auto() -> None:
        found["auto"] = PCA(n_components=1, random_state=0).fit(X).components_[0]

    cases = {
        "scikit-learn, full SVD": sklearn_full,
        "scikit-learn, its own choice": sklearn_auto,
        "scikit-learn, arpack": sklearn_arpack,
        "principal_direction": ours,
    }
    timings = interleave(cases, 3)
    exact = np.linalg.svd(X.astype(np.float64) - X.mean(axis=0, dtype=np.float64), full_matrices=False)[2][0]
    errors = {name: float(np.linalg.norm(v * np.sign(v @ exact) - exact)) for name, v in found.items()}
    report.timings(
        f"One layer in memory: J={n_neurons}, M={n_samples}, centred",
        timings,
        reference="scikit-learn, full SVD",
        note="Distance to a float64 SVD after sign alignment: "
        + ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        + f". Full SVD / ours: {ratio(timings['scikit-learn, full SVD'], timings['principal_direction'])}.",
    )


def low_rank(rng: np.random.Generator, n_samples: int, n_neurons: int) -> np.ndarray:
    """Activations with a mean, twenty decaying components and noise, [M, J] float32."""
    strengths = 4.0 * 0.8 ** np.arange(20)
    parts = rng.standard_normal((n_samples, 20)) * strengths @ rng.standard_normal((20, n_neurons)) / 20
    mean = 0.3 * rng.standard_normal(n_neurons)
    return (parts + mean + 0.2 * rng.standard_normal((n_samples, n_neurons))).astype(np.float32)


def write_set(
    folder: str, n_layers: int, n_neurons: int, n_samples: int, name: str = "in-domain", seed: int = 0
) -> None:
    """Write the set a few rows at a time: its whole is larger than the limit under test."""
    from nait_store.activations.versions import ActivationSets
    from nait_store.activations.writer import SegmentWriter
    from nait_store.schemas.capture import Feature, StoredDtype
    from nait_store.storage.location import Location
    from nait_store.storage.provenance import new_ulid
    from nait_store.testing.stores import ENVIRONMENT, SETTINGS, fake_identity, fake_row, fake_set_record

    location = Location(folder)
    sets = ActivationSets(location)
    sets.create(fake_set_record(name, n_layers=n_layers, n_neurons=n_neurons))
    features = [Feature.MEAN, Feature.DRIFT]
    writer = SegmentWriter(
        location,
        name,
        identity=fake_identity(),
        layers=range(n_layers),
        n_neurons=n_neurons,
        features=features,
        dtype=StoredDtype.FLOAT16,
        settings=SETTINGS,
        environment=ENVIRONMENT,
        expected_rows=n_samples,
    )
    rng = np.random.default_rng(seed)
    bases = rng.standard_normal((n_layers, 20, n_neurons)).astype(np.float32) / 20
    means = 0.3 * rng.standard_normal((n_layers, n_neurons)).astype(np.float32)
    strengths = (4.0 * 0.8 ** np.arange(20)).astype(np.float32)
    for start in range(0, n_samples, 16):
        n = min(16, n_samples - start)
        arrays = {}
        for feature in features:
            weights = rng.standard_normal((n_layers, n, 20), dtype=np.float32) * strengths
            noise = 0.2 * rng.standard_normal((n, n_layers, n_neurons), dtype=np.float32)
            arrays[feature] = np.ascontiguousarray(np.matmul(weights, bases).transpose(1, 0, 2) + means + noise)
        writer.append([fake_row(f"{name}-{i:06d}", i) for i in range(start, start + n)], arrays)
    record = writer.close()
    if record is not None:
        sets.commit(name, [record], ingest_ids=[new_ulid()])


def build(folder: str, recipe: str) -> list[str]:
    """Build once, without a card, delete the result, and return its warnings."""
    from nait_store.activations.versions import ActivationSets
    from nait_store.registry.profiles import ProfileRegistry
    from nait_store.registry.recipes import choose_recipe
    from nait_store.storage.location import Location

    location = Location(folder)
    source = ActivationSets(location).open("in-domain")
    profile, created = ProfileRegistry(location).build(
        "bench", source, recipe=choose_recipe(recipe), quality_card=False
    )
    if not created:
        raise RuntimeError("the build was a no-op: nothing was measured")
    shutil.rmtree(Path(folder) / "profiles")
    return list(profile.record.warnings)


if __name__ == "__main__":
    main()
