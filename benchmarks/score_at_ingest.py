"""Score at ingest: an ingest that scores 16 profiles, against one without, and against scoring afterwards.

All three ingest the same file with the same loaded model into the same store, which holds 16 profiles of the model,
half of them dot and half cosine. *Then scored* is what a user would do without scoring at ingest: the ingest, and
then one scan for all 16. Before any time is taken, the scores that the ingest left are compared with those of a scan,
bit by bit. Loading the model is in none of them, nor is what is compiled and loaded once in a process.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.harness import Options, Report, interleave, ratio, run, workspace
from benchmarks.ingest import toy_inputs

_TOY_SAMPLES = 64
_IN_DOMAIN_SAMPLES = 64
_BYTES = 4 << 30
_SET = "pool"


def main(argv: list[str] | None = None) -> None:
    run(__doc__ or "", body, packages=("torch", "transformers", "numba"), add_arguments=_arguments, argv=argv)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="folder of a causal language model")
    parser.add_argument("--data", help="JSONL of instruction data, or a folder with pool.jsonl")
    parser.add_argument("--samples", type=int, default=1000, help="samples in a timed run (default 1000)")
    parser.add_argument("--profiles", type=int, default=16, help="profiles in the store (default 16)")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own)")


def body(options: Options, report: Report) -> None:
    given = options.extra
    if not options.toy and not (given.model and given.data):
        report.table("Score at ingest", ["skipped"], [["no --model and --data given"]], "Give both, or --toy.")
        return
    if given.threads:
        import torch

        torch.set_num_threads(given.threads)
    with workspace(options, _BYTES) as folder:
        if given.model and given.data:
            model, data = given.model, Path(given.data)
        else:
            model, data = toy_inputs(folder)
        pool = data / "pool.jsonl" if data.is_dir() else data
        n_samples = min(given.samples, _TOY_SAMPLES) if options.toy else given.samples
        _time(options, report, Bench(folder / "store", model, pool, n_samples, given.profiles))


class Bench:
    """A store with profiles, and a model to ingest with."""

    def __init__(self, store: Path, model: str, pool: Path, n_samples: int, n_profiles: int) -> None:
        from nait_store.activations.versions import ActivationSets
        from nait_store.capture.session import CaptureSession
        from nait_store.registry.profiles import ProfileRegistry
        from nait_store.registry.recipes import choose_recipe
        from nait_store.schemas.capture import Feature
        from nait_store.storage.location import Location

        self.location = Location(str(store))
        self._session = CaptureSession.open(model, features=[Feature.MEAN])
        self._pool = pool
        self._n_samples = n_samples
        self._sets = ActivationSets(self.location)
        self.ingest((), name="domain", n_samples=_IN_DOMAIN_SAMPLES)
        source = self._sets.open("domain")
        registry = ProfileRegistry(self.location)
        self._profiles = []
        for number in range(n_profiles):
            recipe = choose_recipe(metric=("dot", "cosine")[number % 2])
            built, _ = registry.build(
                f"p{number:02}", source, recipe=recipe, limit=_IN_DOMAIN_SAMPLES // 2, seed=number
            )
            self._profiles.append(built)

    def ingest(self, score_with: tuple[str, ...] | None, *, name: str = _SET, n_samples: int | None = None) -> Any:
        """Ingest the file into a set; ``score_with`` as in a request."""
        from nait_store.ingest.job import ingest
        from nait_store.ingest.requests import IngestRequest

        request = IngestRequest((str(self._pool),), name, limit=n_samples or self._n_samples, score_with=score_with)
        return ingest(self.location, self._session, request)

    def score(self) -> Any:
        """Compute the scores that are missing, as ``nait-store score`` does."""
        from nait_store.scoring.completion import ensure_scores

        targets = [profile.target() for profile in self._profiles]
        return ensure_scores(self.location, self._sets.open(_SET), targets)

    @property
    def n_profiles(self) -> int:
        """That the ingest scores."""
        return len(self._profiles)

    def clear(self) -> None:
        """Take the set and all scores away."""
        self.location.delete(f"activations/{_SET}")
        self.location.delete("scores")

    def kept(self) -> list[Any]:
        """Every kept score of the set, a table for each segment and profile."""
        from nait_store.scoring.sidecars import ScoreSidecars

        sidecars = ScoreSidecars(self.location, in_memory=False)
        return [
            sidecars.read(segment, profile.target(), ("row_index", "score", "projections"))
            for segment in self._sets.open(_SET).segments
            for profile in self._profiles
        ]

    @property
    def n_tokens(self) -> int:
        """Of the set."""
        return sum(segment.record.n_tokens for segment in self._sets.open(_SET).segments)


def _time(options: Options, report: Report, bench: Bench) -> None:
    n_added = bench.ingest(None).n_added
    n_tokens = bench.n_tokens
    during = bench.kept()
    bench.location.delete("scores")
    bench.score()
    if any(not mine.equals(scanned) for mine, scanned in zip(during, bench.kept(), strict=True)):
        raise SystemExit("the scores that the ingest left are not those of a scan")

    def then_scored() -> None:
        bench.ingest(())
        bench.score()

    scored = f"ingest, {bench.n_profiles} profiles scored"
    timings = interleave(
        {"ingest": lambda: bench.ingest(()), scored: lambda: bench.ingest(None), "ingest, then scored": then_scored},
        options.rounds,
        before=lambda _name: bench.clear(),
    )
    report.timings(f"{n_added:,} samples, {n_tokens:,} tokens", timings, reference="ingest")
    report.limit(f"with {bench.n_profiles} profiles / without", "≤", 1.03, ratio(timings[scored], timings["ingest"]))


if __name__ == "__main__":
    main()
