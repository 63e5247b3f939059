"""Which recipe: every combination on one half of a pool, the chosen ones on the other half.

``--data`` names a folder with ``pool.jsonl`` (records with a ``source`` label), ``in_domain_math.jsonl`` and
``in_domain_code.jsonl``; ``--model`` a causal LM. Without them only ``--toy`` runs, on the demonstration's data.
The pool is split by SHA-256 of the sample id. On the first half the grid is computed: hook point × feature of the
profile × method and centring × feature of the candidate × metric. On the second half, which chose nothing, the
named recipes and the baselines are measured through profiles, SQL and selections as a user would.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Options, Report, run, workspace

if TYPE_CHECKING:
    from nait_store.store.facade import Store

FEATURES = ("mean", "drift", "last")
METHODS: tuple[tuple[str, bool | None], ...] = (("pca", True), ("pca", False), ("mean", None), ("contrastive", None))
METRICS = ("dot", "cosine")


@dataclass(frozen=True)
class Domain:
    """A capability: its in-domain file, and the label of its rows in the pool."""

    name: str
    path: Path
    label: str


@dataclass(frozen=True)
class Corpus:
    """Two halves of a pool, and capabilities to look for in it."""

    halves: tuple[Path, Path]
    domains: tuple[Domain, ...]
    label_field: str


@dataclass(frozen=True)
class Result:
    """One combination and what it reached on the first half, per domain."""

    hook: str
    profile_feature: str
    method: str
    center: bool
    feature: str
    metric: str
    auc: tuple[float, ...]
    precision: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The lowest AUC over the domains: what a default is judged by."""
        return min(self.auc)

    @property
    def words(self) -> str:
        """The direction, in the words of the design's table."""
        kind = {"pca": "centred PC1" if self.center else "uncentred PC1", "mean": "mean direction"}
        return f"{kind.get(self.method, 'contrastive mean')} of {self.profile_feature}"


def main(argv: list[str] | None = None) -> None:
    run(__doc__ or "", body, packages=("torch", "transformers", "scikit-learn"), add_arguments=arguments, argv=argv)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", "--data-dir", type=Path, help="folder with pool.jsonl and in_domain_*.jsonl")
    parser.add_argument("--model", type=Path, help="folder of a causal language model")
    parser.add_argument("--limit", type=int, help="use only the first so many rows of the pool")


def body(options: Options, report: Report) -> None:
    data, model = options.extra.data, options.extra.model
    if not options.toy and (data is None or model is None):
        report.table("Skipped", ["why"], [["no --data and --model given: this study needs real data and a real model"]])
        return
    for given in (data, model):
        if given is not None and not given.is_dir():
            report.table("Skipped", ["why"], [[f"{given} is not a folder"]])
            return
    with workspace(options, 2 << 30) as folder:
        import nait_store

        if data is None or model is None:
            from nait_store.demo.files import MODEL

            model, corpus = MODEL, demo_corpus(folder)
        else:
            corpus = labelled_corpus(data, folder, limit=200 if options.toy else options.extra.limit)
        store = nait_store.open(str(folder / "store"), create=True)
        results = []
        for hook in ("mlp",) if options.toy else ("mlp", "residual", "attn"):
            print(f"{time.strftime('%H:%M:%S')} grid at hook point {hook}", file=sys.stderr, flush=True)
            results += grid(store, corpus, str(model), hook)
        first_half(report, corpus, results)
        second_half(report, store, corpus, str(model))


def grid(store: Store, corpus: Corpus, model: str, hook: str) -> list[Result]:
    """Every combination at one hook point, on the first half."""
    from nait_store.registry.recipes import choose_recipe
    from nait_store.scoring.scan import score_segments
    from nait_store.scoring.targets import ScoringTarget

    store.ingest(str(corpus.halves[0]), set=f"first-{hook}", model=model, features=FEATURES, hook=hook)
    for domain in corpus.domains:
        store.ingest(str(domain.path), set=f"{domain.name}-{hook}", model=model, features=FEATURES, hook=hook)
    pool = store.sets.open(f"first-{hook}")
    labels = labels_of(pool.samples(["record"]).column("record").to_pylist(), corpus.label_field)
    targets: dict[tuple[Any, ...], list[ScoringTarget]] = {}
    for own, (method, center), theirs in itertools.product(FEATURES, METHODS, FEATURES):
        recipe = choose_recipe("default", method=method, center=center, profile_feature=own, feature=theirs)
        against = pool if method == "contrastive" else None
        for domain in corpus.domains:
            source = store.sets.open(f"{domain.name}-{hook}")
            name = f"{domain.name}-{hook}-{own}-{method}-{'centred' if center else 'raw'}-{theirs}"
            profile, _ = store.profiles.registry.build(name, source, recipe=recipe, background=against)
            for metric in METRICS:
                key = (own, method, bool(center), theirs, metric)
                targets.setdefault(key, []).append(profile.target(metric))
    flat = [target for group in targets.values() for target in group]
    scores: dict[int, list[np.ndarray]] = {id(target): [] for target in flat}
    for _, target, found in score_segments([(segment, flat) for segment in pool.segments]):
        scores[id(target)].append(found.scores)
    ids = pool.sample_ids()
    results = []
    for (own, method, center, theirs, metric), group in targets.items():
        measured = [
            quality(np.concatenate(scores[id(target)]), labels == domain.label, ids)
            for target, domain in zip(group, corpus.domains, strict=True)
        ]
        aucs, precisions = zip(*measured, strict=True)
        results.append(Result(hook, own, method, center, theirs, metric, aucs, precisions))
    return results


def first_half(report: Report, corpus: Corpus, results: Sequence[Result]) -> None:
    """Tables of the grid."""
    headings = [f"{what} {domain.name}" for what in ("AUC", "precision@10%") for domain in corpus.domains]
    like_design = [r for r in results if r.hook == "mlp" and r.feature == "mean" and r.profile_feature != "last"]
    like_design.sort(key=lambda r: (r.metric == "cosine", r.profile_feature == "mean", r.method, not r.center))
    report.table(
        "First half: hook mlp, candidates on mean (the table of design §3)",
        ["direction", "metric", *headings],
        [[r.words, r.metric, *cells(r)] for r in like_design],
    )
    best = sorted(results, key=lambda r: -r.worst)
    report.table(
        f"First half: the 12 best and the worst of {len(results)} combinations, by the lowest AUC over the domains",
        ["direction", "hook", "candidates", "metric", *headings],
        [[r.words, r.hook, r.feature, r.metric, *cells(r)] for r in [*best[:12], best[-1]]],
    )
    rows = []
    for choice in ("hook", "profile_feature", "feature", "metric"):
        for value in dict.fromkeys(getattr(r, choice) for r in results):
            rows.append(summary(choice.replace("_", " "), value, [r for r in results if getattr(r, choice) == value]))
    for method, center in METHODS:
        same = [r for r in results if r.method == method and r.center == bool(center)]
        rows.append(summary("method", same[0].words.rsplit(" of ", 1)[0], same))
    rows.append(summary("same feature on both sides", "yes", [r for r in results if r.feature == r.profile_feature]))
    rows.append(summary("same feature on both sides", "no", [r for r in results if r.feature != r.profile_feature]))
    report.table(
        "First half: each choice by itself (lowest AUC over the domains)",
        ["choice", "value", "best", "median", "worst"],
        rows,
    )


def second_half(report: Report, store: Store, corpus: Corpus, model: str) -> None:
    """Named recipes and baselines through the public interface."""
    store.ingest(str(corpus.halves[1]), set="second", model=model, features=FEATURES)
    last = store.sets.open("second").record.n_model_layers - 1
    files = {"second": corpus.halves[1], **{domain.name: domain.path for domain in corpus.domains}}
    for name, path in files.items():  # the in-domain ones are there already, unless this is a toy run
        store.ingest(str(path), set=f"{name}-residual", model=model, features=FEATURES, hook="residual")
    query = "SELECT sample_id, record, n_content_tokens FROM samples('second') ORDER BY sample_id"
    ids, records, lengths = (list(column) for column in zip(*store.sql(query).fetchall(), strict=True))
    labels = labels_of(records, corpus.label_field)
    recipes: dict[str, dict[str, Any]] = {
        "**default**": {"recipe": "default"},
        "nait-paper": {"recipe": "nait-paper"},
        "default with dot": {"recipe": "default", "metric": "dot"},
        "contrastive against the pool (--against)": {"recipe": "default", "against": "second"},
    }
    rows: dict[str, list[str]] = {}
    for domain in corpus.domains:
        wanted = labels == domain.label
        share = f"{wanted.mean():.0%} of {len(ids):,}"
        for number, (words, build) in enumerate(recipes.items()):
            profile, _ = store.profiles.build(f"{domain.name}-recipe-{number}", source=f"{domain.name}-mlp", **build)
            query = f"SELECT score FROM alignment('second', '{profile.reference}') ORDER BY sample_id"
            scores = np.array([score for (score,) in store.sql(query).fetchall()])
            auc, precision = quality(scores, wanted, ids)
            chosen = store.select("second", profile=profile.reference, top="10%").rows.column("sample_id").to_pylist()
            of_selection = float(np.mean([wanted[ids.index(sample_id)] for sample_id in chosen]))
            if of_selection != precision:
                raise RuntimeError(f"select and SQL disagree: {of_selection} against {precision}")
            rows.setdefault(words, []).extend([f"{auc:.3f}", f"{precision:.2f}"])
        centroid = cosine_to_centroid(store, domain.name, last, ids)
        baselines = {
            "baseline: cosine to the in-domain centroid, last layer": centroid,
            "baseline: longest first": np.array(lengths, dtype=float),
            "baseline: random": np.array([_draw(sample_id, "random") for sample_id in ids]),
        }
        for words, scores in baselines.items():
            auc, precision = quality(scores, wanted, ids)
            rows.setdefault(words, []).extend([f"{auc:.3f}", f"{precision:.2f}"])
        rows.setdefault("share of the domain in this half", []).extend(["", share])
    report.table(
        "Second half, which chose nothing: through profile build, SQL and select",
        ["ranked by", *(c for d in corpus.domains for c in (f"AUC {d.name}", f"precision@10% {d.name}"))],
        [[words, *values] for words, values in rows.items()],
    )


def cosine_to_centroid(store: Store, domain: str, layer: int, ids: Sequence[str]) -> np.ndarray:
    """Baseline: cosine of the last layer's output (mean over tokens) to the in-domain mean, in the order of ``ids``."""
    in_domain, candidates = (last_layer(store, f"{name}-residual", layer) for name in (domain, "second"))
    centroid = np.mean(list(in_domain.values()), axis=0)
    vectors = np.stack([candidates[sample_id] for sample_id in ids])
    return vectors @ centroid / np.linalg.norm(vectors, axis=1)


def last_layer(store: Store, name: str, layer: int) -> dict[str, np.ndarray]:
    from nait_store.schemas.capture import Feature

    version = store.sets.open(name)
    rows = np.concatenate([segment.read(Feature.MEAN, layers=[layer])[:, 0] for segment in version.segments])
    return dict(zip(version.sample_ids(), rows.astype(np.float64), strict=True))


def quality(scores: np.ndarray, wanted: np.ndarray, ids: Sequence[str]) -> tuple[float, float]:
    """ROC-AUC, and the share of wanted samples in the top 10 % (ties broken by sample id)."""
    from sklearn.metrics import roc_auc_score

    top = np.lexsort((np.array(ids), -scores))[: -(-len(ids) // 10)]
    return float(roc_auc_score(wanted, scores)), float(wanted[top].mean())


def labels_of(records: Sequence[str], field: str) -> np.ndarray:
    return np.array([json.loads(record)[field] for record in records])


def labelled_corpus(data: Path, folder: Path, limit: int | None) -> Corpus:
    """The shared data: label ``source``."""
    halves = split(data / "pool.jsonl", folder, limit)
    domains = (
        Domain("math", data / "in_domain_math.jsonl", "gsm8k"),
        Domain("code", data / "in_domain_code.jsonl", "code"),
    )
    return Corpus(halves, domains, "source")


def demo_corpus(folder: Path) -> Corpus:
    """A little of the demonstration's data, which has one in-domain file."""
    from nait_store.demo.files import DATA

    for name, n_rows in (("pool", 200), ("maths", 24)):
        lines = gzip.decompress((DATA / f"{name}.jsonl.gz").read_bytes()).splitlines(keepends=True)[:n_rows]
        (folder / f"{name}.jsonl").write_bytes(b"".join(lines))
    halves = split(folder / "pool.jsonl", folder, None)
    return Corpus(halves, (Domain("maths", folder / "maths.jsonl", "maths"),), "domain")


def split(pool: Path, folder: Path, limit: int | None) -> tuple[Path, Path]:
    """Write the two halves of a pool, by sample id."""
    halves = (folder / "first.jsonl", folder / "second.jsonl")
    with halves[0].open("w", encoding="utf-8") as first, halves[1].open("w", encoding="utf-8") as second:
        for sample_id, record in itertools.islice(samples_of(pool), limit):
            (first if _draw(sample_id, "half") < 0.5 else second).write(record + "\n")
    return halves


def samples_of(path: Path) -> Iterator[tuple[str, str]]:
    """Sample id and canonical record of every line."""
    from nait_store.capture.conversations import make_sample
    from nait_store.capture.readers import read_records

    for record in read_records(str(path), on_error="stop", rejects=lambda _: None):
        sample = make_sample(record)
        yield sample.sample_id, sample.record_json


def cells(result: Result) -> list[str]:
    return [*(f"{auc:.3f}" for auc in result.auc), *(f"{precision:.2f}" for precision in result.precision)]


def summary(choice: str, value: str, results: Sequence[Result]) -> list[str]:
    worst = sorted(result.worst for result in results)
    return [choice, value, f"{worst[-1]:.3f}", f"{np.median(worst):.3f}", f"{worst[0]:.3f}"]


def _draw(sample_id: str, salt: str) -> float:
    """A number in [0, 1) that depends on nothing but the sample."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{sample_id}".encode()).digest()[:8], "big") / 2**64


if __name__ == "__main__":
    main()
