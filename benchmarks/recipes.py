"""Which recipe: every combination on one half of a pool, the chosen ones on the other half.

``--data`` names a folder with ``pool.jsonl`` (records with a ``source`` label), and ``in_domain_math.jsonl`` and
``in_domain_code.jsonl``, or those of other ``--capabilities``; ``--model`` a causal LM. Without them only ``--toy``
runs, on the demonstration's data.
The pool is split by SHA-256 of the sample id. On the first half the grid is computed: hook point × feature of the
profile × method and centring × feature of the candidate × metric. On the second half, which chose nothing, the
named recipes and the baselines are measured through profiles, SQL and selections as a user would.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.domain_auc import EMBEDDING, LENGTH_MATCHED, AucDifference, Candidates, draw, labels_of, quality
from benchmarks.harness import Options, Ratio, Report, run, workspace
from benchmarks.json_lines import read_json_lines

if TYPE_CHECKING:
    from nait_store.store.facade import Store

FEATURES = ("mean", "drift", "last")
METHODS: tuple[tuple[str, bool | None], ...] = (("pca", True), ("pca", False), ("mean", None), ("contrastive", None))
METRICS = ("dot", "cosine")
CAPABILITIES = ("math", "code")
OURS = "**default**"
RESIDUAL = "baseline: cosine to the in-domain centroid, last layer's output"
MUST_NOT_BEAT = (EMBEDDING, LENGTH_MATCHED, RESIDUAL)


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
    run(__doc__ or "", body, packages=("torch", "transformers"), add_arguments=arguments, argv=argv)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", "--data-dir", type=Path, help="folder with pool.jsonl and in_domain_*.jsonl")
    parser.add_argument("--model", type=Path, help="folder of a causal language model")
    add_capabilities(parser)
    parser.add_argument("--no-grid", action="store_true", help="measure the second half only")
    parser.add_argument("--limit", type=int, help="use only the first so many rows of the pool")


def add_capabilities(parser: argparse.ArgumentParser) -> None:
    """The option that says which in-domain files of ``--data`` are used."""
    parser.add_argument(
        "--capabilities",
        nargs="+",
        default=CAPABILITIES,
        metavar="NAME",
        help=f"of the files in_domain_NAME.jsonl (default: {' '.join(CAPABILITIES)})",
    )


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
            limit = 200 if options.toy else options.extra.limit
            corpus = labelled_corpus(data, folder, limit, options.extra.capabilities)
        store = nait_store.open(str(folder / "store"), create=True)
        if not options.extra.no_grid:
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
    store.ingest(str(corpus.halves[1]), set="second-residual", model=model, features=FEATURES, hook="residual")
    for domain, hook in itertools.product(corpus.domains, ("mlp", "residual")):  # what the grid has left out
        store.ingest(str(domain.path), set=f"{domain.name}-{hook}", model=model, features=FEATURES, hook=hook)
    candidates = Candidates.of(store, "second", corpus.label_field)
    rows: dict[str, list[str]] = {}
    differences: dict[str, list[str]] = {}
    for domain in corpus.domains:
        wanted = candidates.labels == domain.label
        scores = rankings(store, candidates, domain)
        for words, values in scores.items():
            auc, precision = quality(values, wanted, candidates.ids)
            rows.setdefault(words, []).extend([f"{auc:.3f}", f"{precision:.2f}"])
            if words == OURS:
                continue
            difference = AucDifference.of(scores[OURS], values, wanted)
            differences.setdefault(words, []).append(str(difference))
            if words in MUST_NOT_BEAT:
                what = f"AUC {domain.name}: default − {words.removeprefix('baseline: ')}"
                report.limit(what, "≥", 0, Ratio(difference.value, difference.low, difference.high, len(wanted)), "")
        rows.setdefault("share of the domain in this half", []).extend(["", f"{wanted.mean():.0%} of {len(wanted):,}"])
    report.table(
        "Second half, which chose nothing: through profile build, SQL and select",
        ["ranked by", *(c for d in corpus.domains for c in (f"AUC {d.name}", f"precision@10% {d.name}"))],
        [[words, *values] for words, values in rows.items()],
    )
    report.table(
        "Second half: AUC of the default minus that of the others",
        ["other", *(domain.name for domain in corpus.domains)],
        [[words, *values] for words, values in differences.items()],
        "95 % intervals by DeLong's method, over the candidates of this half.",
    )


def rankings(store: Store, candidates: Candidates, domain: Domain) -> dict[str, np.ndarray]:
    """Scores [n] of the recipes, whose selections must agree with them, and of the baselines."""
    recipes: dict[str, dict[str, Any]] = {
        OURS: {"recipe": "default"},
        "nait-paper": {"recipe": "nait-paper"},
        "default with dot": {"recipe": "default", "metric": "dot"},
        "contrastive against the pool (--against)": {"recipe": "default", "against": candidates.reference},
    }
    scores: dict[str, np.ndarray] = {}
    references: dict[str, str] = {}
    for number, (words, build) in enumerate(recipes.items()):
        profile, _ = store.profiles.build(f"{domain.name}-recipe-{number}", source=f"{domain.name}-mlp", **build)
        references[words] = profile.reference
        scores[words] = candidates.alignment(store, profile.reference)
        best = np.lexsort((candidates.ids, -scores[words]))[: -(-len(candidates.ids) // 10)]
        selection = store.select(candidates.reference, profile=profile.reference, top="10%")
        if selection.rows.column("sample_id").to_pylist() != [candidates.ids[i] for i in best]:
            raise RuntimeError(f"select and SQL disagree about {profile.reference}")
    last = store.sets.open(candidates.reference).record.n_model_layers - 1
    scores[RESIDUAL] = cosine_to_centroid(store, domain.name, last, candidates.ids)
    return scores | candidates.baselines(store, references[OURS])


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


def labelled_corpus(data: Path, folder: Path, limit: int | None, capabilities: Sequence[str] = CAPABILITIES) -> Corpus:
    """Records of a folder, with their label in ``source``."""
    missing = [name for name in ("pool.jsonl", *map(in_domain_file, capabilities)) if not (data / name).is_file()]
    if missing:
        raise SystemExit(f"{data} has no {', '.join(missing)}: name a folder that has them, and its --capabilities")
    domains = [Domain(name, path := data / in_domain_file(name), label_of(path)) for name in capabilities]
    return Corpus(split(data / "pool.jsonl", folder, limit), tuple(domains), "source")


def in_domain_file(capability: str) -> str:
    """Where a folder holds the in-domain records of a capability."""
    return f"in_domain_{capability}.jsonl"


def label_of(in_domain: Path) -> str:
    """The label that all records of an in-domain file have."""
    labels = {record.get("source") for record in read_json_lines(in_domain)}
    if len(labels) != 1 or None in labels:
        raise SystemExit(f"{in_domain}: its records must have one source, the label of such records in pool.jsonl")
    return str(labels.pop())


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
            (first if draw(sample_id, "half") < 0.5 else second).write(record + "\n")
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


if __name__ == "__main__":
    main()
