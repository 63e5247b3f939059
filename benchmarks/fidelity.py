"""Does the choice train better: held-out loss after fine-tuning on what the paper, its controls and baselines choose.

arXiv 2603.13201's comparison in miniature. For every seed a small Llama is trained from scratch on a part of the pool's
everyday records, which hold neither maths nor code. The rest of the pool are the candidates, *with* and *without* the
records of the target's own source: without them, nothing in the pool is of the kind that is asked for. What the store
selects, for each capability and for their union, fine-tunes a copy of that model, in the same number of passes; the
loss, in nats per token, is that of the answers of in-domain records that nobody has seen. A seed decides weights,
order, in-domain half and random choices; intervals are Student's, over seeds, those of differences over the pairs of
the same seed.

``--model`` gives the tokenizer; with ``--base given`` it is the base model itself, and seeds differ in order and
choice. With ``--keep`` a study that was stopped goes on where it was, and takes more seeds or choices later.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.domain_auc import Candidates, quality
from benchmarks.harness import Options, Report, run, workspace
from benchmarks.json_lines import read_json_lines
from benchmarks.recipes import add_capabilities, demo_corpus, labelled_corpus
from benchmarks.training.choices import (
    CHOICES,
    WITH,
    WITHOUT,
    CandidateStore,
    Capability,
    Choice,
    profile_of,
)
from benchmarks.training.kept import Kept
from benchmarks.training.losses import Loss, Losses, Question
from benchmarks.training.small_models import (
    Example,
    Examples,
    Shape,
    answer_loss,
    new_model,
    save,
    trained,
)
from benchmarks.training.study_tables import BASE, add_comparisons, add_tables

SEEDS = 5
TOP = "10%"
_BASE_EPOCHS, _BASE_RATE = 2, 2e-3
_TUNING_EPOCHS, _TUNING_RATE = 2, 1e-3
_TOY_SHAPE = Shape(hidden=32, intermediate=64, n_layers=2, n_heads=2, max_tokens=96)


def main(argv: list[str] | None = None) -> None:
    run(__doc__ or "", body, packages=("torch", "transformers"), add_arguments=arguments, argv=argv)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder with pool.jsonl and in_domain_*.jsonl")
    add_capabilities(parser)
    parser.add_argument("--model", type=Path, help="folder of a causal language model, for its tokenizer")
    parser.add_argument("--base", choices=("scratch", "given"), default="scratch", help="train it, or take --model")
    parser.add_argument("--seeds", type=int, help=f"how many (default {SEEDS}; 2 at toy size)")
    parser.add_argument("--candidates", type=int, default=2400, help="records to choose from (default 2400)")
    parser.add_argument("--top", default=TOP, help=f"how much is chosen (default {TOP})")
    parser.add_argument("--hidden", type=int, default=128, help="width of the model (default 128)")
    parser.add_argument("--layers", type=int, default=4, help="its layers (default 4)")
    parser.add_argument("--device", help="cpu or cuda (default: CUDA if there is one)")
    names = [choice.name for choice in CHOICES]
    parser.add_argument("--choices", nargs="+", choices=names, default=names, metavar="NAME", help="; ".join(names))
    parser.add_argument("--pools", nargs="+", choices=(WITH, WITHOUT), default=(WITH, WITHOUT), help="candidates")
    parser.add_argument("--keep", type=Path, help="folder for losses, AUCs, base models and stores, to continue from")
    parser.add_argument(
        "--tables",
        nargs="+",
        type=Path,
        metavar="KEPT",
        help="train nothing: the tables of a kept study, or of several",
    )


def body(options: Options, report: Report) -> None:
    given = options.extra
    if given.tables and len(given.tables) == 1:
        add_tables(report, Kept.of(given.tables[0]))
    elif given.tables:
        add_comparisons(report, {folder.name: Kept.of(folder) for folder in given.tables})
    elif options.toy or (given.data and given.model):
        with _folder(options) as folder:
            measure(options, folder, report)
    else:
        report.table("Skipped", ["why"], [["no --data and --model given: this study needs real data and a tokenizer"]])


@contextmanager
def _folder(options: Options) -> Iterator[Path]:
    if options.extra.keep:
        options.extra.keep.mkdir(parents=True, exist_ok=True)
        yield options.extra.keep
    else:
        with workspace(options, 4 << 30) as folder:
            yield folder


def measure(options: Options, folder: Path, report: Report) -> None:
    """Train and ask, as far as that was not done before, and add the tables."""
    import torch

    given = options.extra
    device = given.device or ("cuda" if torch.cuda.is_available() and not options.toy else "cpu")
    study = Study.of(options, folder, device)
    kept = Kept.of(folder, study.settings)
    for seed in range(given.seeds or (2 if options.toy else SEEDS)):
        kept.aucs.add(seed, study.run(seed, kept.losses))
    add_tables(report, kept)


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
    choices: tuple[Choice, ...]
    pools: tuple[str, ...]

    @classmethod
    def of(cls, options: Options, folder: Path, device: str) -> Study:
        """Read the data; at toy size that of the demonstration."""
        given = options.extra
        if given.data and given.model:
            corpus, model = labelled_corpus(given.data, folder, None, given.capabilities), given.model
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
            choices=tuple(choice for choice in CHOICES if choice.name in given.choices),
            pools=tuple(given.pools),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the losses, besides seed and choice."""
        data = json.dumps([self.pool, self.in_domain]).encode()
        return {
            "data": hashlib.sha256(data).hexdigest()[:16],
            "model": self.model.name,
            "base": "given" if self.given_base else "scratch",
            "shape": asdict(self.shape),
            "candidates": self.n_candidates,
            "top": self.top,
        }

    def run(self, seed: int, losses: Losses) -> dict[str, dict[str, float]]:
        """Add the losses of a seed that are not known yet; returns target → ranked by → ROC-AUC of its source."""
        from transformers import AutoTokenizer

        generator = np.random.default_rng(seed)
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        examples = Examples(tokenizer, self.shape.max_tokens)
        order = [self.pool[i] for i in generator.permutation(len(self.pool))]
        labels = {label for label, _ in self.in_domain.values()}
        ordinary = [record for record in order if record[self.label_field] not in labels]
        learnt = ordinary[: len(ordinary) // 2]
        seen = set(map(id, learnt))
        candidates = [record for record in order if id(record) not in seen][: self.n_candidates]
        capabilities = [
            Capability(name, label, *halves(records, generator)) for name, (label, records) in self.in_domain.items()
        ]
        folder = self.folder / f"seed-{seed}"
        base = self._base(seed, tokenizer, [examples.of(record) for record in learnt], folder / "model")
        pool_store = CandidateStore.filled(folder, folder / "model", candidates, capabilities, self.label_field)
        records = pool_store.records()
        unseen = {one.name: [examples.of(record) for record in one.unseen] for one in capabilities}
        for sample_ids, questions in self._open_questions(seed, pool_store, capabilities, losses).items():
            lessons = [records[sample_id] for sample_id in sample_ids]
            for loss in self._answers(questions, base, lessons, examples, unseen):
                losses.add(loss)
        return {one.name: self._aucs(pool_store, one) for one in capabilities}

    def _answers(
        self,
        questions: Sequence[Question],
        base: Any,
        lessons: Sequence[dict[str, Any]],
        examples: Examples,
        unseen: dict[str, list[Example]],
    ) -> Iterator[Loss]:
        """Fine-tune once, and ask."""
        seed = questions[0].seed
        say(f"seed {seed}: {len(lessons):,} records, for {', '.join(dict.fromkeys(one.chosen for one in questions))}")
        learnt = [examples.of(record) for record in lessons]
        model = base
        if learnt:
            model = trained(base, learnt, epochs=_TUNING_EPOCHS, rate=_TUNING_RATE, seed=seed, answers_only=True)
        found = {name: answer_loss(model, unseen[name]) for name in dict.fromkeys(one.asked for one in questions)}
        for one in questions:
            label, _ = self.in_domain[one.asked]
            yield Loss(
                one,
                n_records=len(lessons),
                n_answer_tokens=sum(len(example.tokens) - example.n_prompt for example in learnt),
                n_of_asked=sum(record[self.label_field] == label for record in lessons),
                nats_per_token=found[one.asked],
            )

    def _aucs(self, pool_store: CandidateStore, target: Capability) -> dict[str, float]:
        """ROC-AUC of the target's source among the candidates, by what ranks them."""
        store = pool_store.store
        candidates = Candidates.of(store, "pool", self.label_field)
        ranked = {
            one.name: profile_of(target, one.recipe) for one in CHOICES if one.strategy == "alignment" and one.recipe
        }
        scores = {name: candidates.alignment(store, profile) for name, profile in ranked.items()}
        scores |= candidates.baselines(store, profile_of(target, "default"))
        wanted = candidates.labels == target.label
        return {name: quality(values, wanted, candidates.ids)[0] for name, values in scores.items()}

    def _base(self, seed: int, tokenizer: Any, learnt: Sequence[Example], folder: Path) -> Any:
        """The model that is fine-tuned, as it was saved in a folder, or made and saved there."""
        from transformers import AutoModelForCausalLM

        if not folder.exists():
            if self.given_base:
                model = AutoModelForCausalLM.from_pretrained(self.model)
            else:
                model = new_model(self.shape, tokenizer, seed, self.device)
                say(f"seed {seed}: the base, {model.num_parameters():,} parameters on {len(learnt):,} records")
                model = trained(model, learnt, epochs=_BASE_EPOCHS, rate=_BASE_RATE, seed=seed, answers_only=False)
            unfinished = folder.with_name("model.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            save(model, tokenizer, unfinished).rename(folder)
        return AutoModelForCausalLM.from_pretrained(folder).to(self.device).eval()

    def _open_questions(
        self, seed: int, pool_store: CandidateStore, capabilities: Sequence[Capability], losses: Losses
    ) -> dict[tuple[str, ...], list[Question]]:
        """Sample ids → what is to be asked of the model that learns them; equal choices train one model."""
        found: dict[tuple[str, ...], list[Question]] = {}
        targets = [[one] for one in capabilities]
        if len(capabilities) > 1:
            targets.append(list(capabilities))
        choices: tuple[Choice | None, ...] = (None, *self.choices)
        for choice, target, pool in itertools.product(choices, targets, self.pools):
            name, chosen = " and ".join(one.name for one in target), BASE if choice is None else choice.name
            questions = [Question(seed, name, pool, one.name, chosen) for one in target]
            if all(question in losses for question in questions):
                continue
            ids = () if choice is None else pool_store.chosen(choice, target, pool=pool, top=self.top, seed=seed)
            if ids is not None:
                found.setdefault(ids, []).extend(questions)
        return found


def halves(
    records: Sequence[dict[str, Any]], generator: np.random.Generator
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """Split records by chance."""
    order = generator.permutation(len(records))
    middle = len(order) // 2
    return tuple(records[i] for i in order[:middle]), tuple(records[i] for i in order[middle:])


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
