"""Does the choice train better: held-out loss after fine-tuning on the top, random and lowest share of a pool.

arXiv 2603.13201's comparison in miniature. For every seed a small Llama is trained from scratch on a part of the pool's
everyday records, which hold neither maths nor code. The rest of the pool are the candidates, *with* and *without* the
records of the target's own source: without them, nothing in the pool is of the kind that is asked for. What the store
selects fine-tunes a copy of that model, in the same number of passes; the loss, in nats per token, is that of the
answers of in-domain records that nobody has seen. A seed decides weights, order, in-domain half and random choices;
intervals are Student's, over the differences of the same seed from a random choice of the same size.

``--model`` gives the tokenizer; with ``--base given`` it is the base model itself, and seeds differ in order and
choice.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Options, Report, run, workspace
from benchmarks.json_lines import read_json_lines, write_json_lines
from benchmarks.recipes import demo_corpus, labelled_corpus
from benchmarks.training.small_models import (
    Example,
    Examples,
    Shape,
    answer_loss,
    new_model,
    save,
    trained,
)

if TYPE_CHECKING:
    from nait_store.store.facade import Store

SEEDS = 5
TOP = "10%"
_BASE_EPOCHS, _BASE_RATE = 2, 2e-3
_TUNING_EPOCHS, _TUNING_RATE = 2, 1e-3
_TOY_SHAPE = Shape(hidden=32, intermediate=64, n_layers=2, n_heads=2, max_tokens=96)
_RECIPES: dict[str, dict[str, Any]] = {
    "default": {"recipe": "default"},
    "contrast": {"recipe": "default", "against": "pool"},
    "paper": {"recipe": "nait-paper"},
}


@dataclass(frozen=True)
class Target:
    """A capability.

    Attributes
    ----------
    name, label
        ``math``, and the source of its records in the pool.
    known, unseen
        In-domain records that profiles are made of, and those that are asked about.
    """

    name: str
    label: str
    known: tuple[dict[str, Any], ...]
    unseen: tuple[dict[str, Any], ...]


def main(argv: list[str] | None = None) -> None:
    run(__doc__ or "", body, packages=("torch", "transformers"), add_arguments=arguments, argv=argv)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder with pool.jsonl and in_domain_*.jsonl")
    parser.add_argument("--model", type=Path, help="folder of a causal language model, for its tokenizer")
    parser.add_argument("--base", choices=("scratch", "given"), default="scratch", help="train it, or take --model")
    parser.add_argument("--seeds", type=int, help=f"how many (default {SEEDS}; 2 at toy size)")
    parser.add_argument("--candidates", type=int, default=2400, help="records to choose from (default 2400)")
    parser.add_argument("--top", default=TOP, help=f"how much is chosen (default {TOP})")
    parser.add_argument("--hidden", type=int, default=128, help="width of the model (default 128)")
    parser.add_argument("--layers", type=int, default=4, help="its layers (default 4)")
    parser.add_argument("--device", help="cpu or cuda (default: CUDA if there is one)")


def body(options: Options, report: Report) -> None:
    import torch

    given = options.extra
    if not options.toy and not (given.data and given.model):
        report.table("Skipped", ["why"], [["no --data and --model given: this study needs real data and a tokenizer"]])
        return
    device = given.device or ("cuda" if torch.cuda.is_available() and not options.toy else "cpu")
    with workspace(options, 4 << 30) as folder:
        study = Study.of(options, folder, device)
        n_seeds = given.seeds or (2 if options.toy else SEEDS)
        found: dict[tuple[str, str], dict[str, list[float]]] = {}
        for seed in range(n_seeds):
            for key, losses in study.run(seed).items():
                for choice, loss in losses.items():
                    found.setdefault(key, {}).setdefault(choice, []).append(loss)
                    say(f"seed {seed}, {' '.join(key)}, {choice}: {loss:.4f}")
        for (target, pool), losses in found.items():
            add_table(report, f"{target}, {pool}", given.top, losses)


@dataclass(frozen=True)
class Study:
    """What every seed shares."""

    pool: tuple[dict[str, Any], ...]
    in_domain: dict[str, tuple[str, tuple[dict[str, Any], ...]]]
    """Name → label and records."""
    label_field: str
    model: Path
    given_base: bool
    shape: Shape
    n_candidates: int
    top: str
    device: str
    folder: Path

    @classmethod
    def of(cls, options: Options, folder: Path, device: str) -> Study:
        """Read the data; at toy size that of the demonstration."""
        given = options.extra
        if given.data and given.model:
            corpus, model = labelled_corpus(given.data, folder, limit=None), given.model
        else:
            from nait_store.demo.files import MODEL

            corpus, model = demo_corpus(folder), MODEL
        pool = [record for half in corpus.halves for record in read_json_lines(half)]
        shape = Shape(hidden=given.hidden, intermediate=3 * given.hidden, n_layers=given.layers)
        return cls(
            pool=tuple(pool),
            in_domain={d.name: (d.label, tuple(read_json_lines(d.path))) for d in corpus.domains},
            label_field=corpus.label_field,
            model=Path(model),
            given_base=given.base == "given",
            shape=_TOY_SHAPE if options.toy else shape,
            n_candidates=150 if options.toy else given.candidates,
            top=given.top,
            device=device,
            folder=folder,
        )

    def run(self, seed: int) -> dict[tuple[str, str], dict[str, float]]:
        """Losses by target and pool, and by what was chosen."""
        from transformers import AutoTokenizer

        import nait_store

        generator = np.random.default_rng(seed)
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        examples = Examples(tokenizer, self.shape.max_tokens)
        order = [self.pool[i] for i in generator.permutation(len(self.pool))]
        labels = {label for label, _ in self.in_domain.values()}
        ordinary = [record for record in order if record[self.label_field] not in labels]
        learnt = ordinary[: len(ordinary) // 2]
        seen = set(map(id, learnt))
        candidates = [record for record in order if id(record) not in seen][: self.n_candidates]
        base = self._base(seed, tokenizer, [examples.of(record) for record in learnt])
        folder = self.folder / f"seed-{seed}"
        model = save(base, tokenizer, folder / "model")
        store = nait_store.open(str(folder / "store"), create=True)
        targets = [
            Target(name, label, *halves(records, generator)) for name, (label, records) in self.in_domain.items()
        ]
        store.ingest(
            str(write_json_lines(folder / "pool.jsonl", candidates)), set="pool", model=str(model), features=_FEATURES
        )
        tune = functools.cache(functools.partial(self._tuned, base, examples, seed, store))
        results = {}
        for target in targets:
            source = str(write_json_lines(folder / f"{target.name}.jsonl", target.known))
            store.ingest(source, set=target.name, model=str(model), features=_FEATURES)
            for recipe, build in _RECIPES.items():
                store.profiles.build(f"{target.name}-{recipe}", source=target.name, **build)
            asked = [examples.of(record) for record in target.unseen]
            for pool, where in (("with its source", None), ("without its source", self._elsewhere(target))):
                choices = self._choices(store, target, where, seed)
                losses = {"the base model": answer_loss(base, asked)}
                losses |= {name: answer_loss(tune(chosen), asked) for name, chosen in choices.items()}
                results[target.name, pool] = losses
        return results

    def _base(self, seed: int, tokenizer: Any, learnt: Sequence[Example]) -> Any:
        if self.given_base:
            from transformers import AutoModelForCausalLM

            return AutoModelForCausalLM.from_pretrained(self.model).to(self.device).eval()
        model = new_model(self.shape, tokenizer, seed, self.device)
        say(f"seed {seed}: training the base, {model.num_parameters():,} parameters on {len(learnt):,} records")
        return trained(model, learnt, epochs=_BASE_EPOCHS, rate=_BASE_RATE, seed=seed, answers_only=False)

    def _elsewhere(self, target: Target) -> str:
        return f"json_extract_string(record, '$.{self.label_field}') <> '{target.label}'"

    def _choices(self, store: Store, target: Target, where: str | None, seed: int) -> dict[str, tuple[str, ...]]:
        """Sample ids by what chose them; as many each, but for all."""

        def select(profile: str | None, **options: Any) -> tuple[str, ...]:
            top = options.pop("top", self.top)
            chosen = store.select("pool", profile=profile, top=top, where=where, **options)
            return tuple(sorted(chosen.rows.column("sample_id").to_pylist()))

        default = f"{target.name}-default"
        choices = {
            "random": select(None, strategy="random", seed=seed),
            "top, default recipe": select(default),
            "top, contrast": select(f"{target.name}-contrast"),
            "top, the paper's recipe": select(f"{target.name}-paper"),
            "lowest, default recipe": select(default, strategy="lowest"),
        }
        if where is None:
            choices["everything"] = select(None, strategy="random", seed=seed, top="100%")
        return choices

    def _tuned(self, base: Any, examples: Examples, seed: int, store: Store, sample_ids: tuple[str, ...]) -> Any:
        say(f"seed {seed}: fine-tuning on {len(sample_ids):,} records")
        return trained(
            base,
            [examples.of(record) for record in records_of(store, sample_ids)],
            epochs=_TUNING_EPOCHS,
            rate=_TUNING_RATE,
            seed=seed,
            answers_only=True,
        )


_FEATURES = ("mean", "drift")


def records_of(store: Store, sample_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Records of samples of the pool, in the order of their ids."""
    rows = store.sql("SELECT sample_id, record FROM samples('pool')").fetchall()
    by_id = {sample_id: json.loads(record) for sample_id, record in rows}
    return [by_id[sample_id] for sample_id in sample_ids]


def halves(
    records: Sequence[dict[str, Any]], generator: np.random.Generator
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """Split records by chance."""
    order = generator.permutation(len(records))
    middle = len(order) // 2
    return tuple(records[i] for i in order[:middle]), tuple(records[i] for i in order[middle:])


def add_table(report: Report, title: str, top: str, losses: dict[str, list[float]]) -> None:
    """Losses over the seeds, and how they differ from those of a random choice."""
    random = np.array(losses["random"])
    rows = []
    for choice, values in losses.items():
        mean = f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"
        rows.append([choice, mean, "" if choice == "random" else difference(np.array(values) - random)])
    report.table(
        f"Target {title}: held-out loss after training on {top} of the candidates",
        ["chosen", "loss, mean (range)", "minus random, 95 % interval"],
        rows,
        f"{len(random)} seeds; lower is better.",
    )


def difference(values: np.ndarray) -> str:
    """Mean and Student's 95 % interval of paired differences, with a verdict."""
    from scipy import stats

    n = len(values)
    half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("inf")
    mean = float(values.mean())
    verdict = "better" if mean + half < 0 else "worse" if mean - half > 0 else "no difference shown"
    return f"{mean:+.3f} ± {half:.3f}: {verdict}"


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
