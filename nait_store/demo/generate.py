"""The demonstration's data: four domains of instruction records whose lengths are drawn from one distribution.

Were maths simply longer than the rest, ranking by length would look as good as ranking by neurons. So every
domain is drawn in excess, and records are picked whose token counts follow one common, uniform distribution.
"""

from __future__ import annotations

import bisect
import gzip
import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nait_store.demo import arithmetic, programs, small_talk, translations
from nait_store.demo.vocabulary import Record

Draw = Callable[[random.Random], Record]
CountTokens = Callable[[Sequence[str]], list[int]]

DOMAINS: dict[str, Draw] = {
    "maths": arithmetic.draw,
    "code": programs.draw,
    "translation": translations.draw,
    "chat": small_talk.draw,
}
POOL_COUNTS = {"maths": 400, "code": 500, "translation": 550, "chat": 550}
N_IN_DOMAIN = 256
_EXCESS = 6


def text_of(record: Record) -> str:
    """All of a record's own text, as one string."""
    return "\n".join(part for part in (record["instruction"], record["input"], record["output"]) if part)


def training_records(n_records: int, seed: int) -> list[Record]:
    """Draw records for training the model: the domains in equal shares, of any length, shuffled."""
    rng = random.Random(f"training {seed}")
    draws = list(DOMAINS.values())
    return [draws[i % len(draws)](rng) for i in rng.sample(range(n_records), n_records)]


def pool_and_in_domain(count_tokens: CountTokens, seed: int = 0) -> tuple[list[Record], list[Record]]:
    """Draw the candidates and the in-domain maths records, disjoint and matched in length.

    Parameters
    ----------
    count_tokens
        Token counts of texts by the demonstration's tokenizer.
    seed
        The same seed and tokenizer give the same records.

    Returns
    -------
    pool, in_domain
        ``POOL_COUNTS`` records in shuffled order; ``N_IN_DOMAIN`` maths records.
    """
    rng = random.Random(f"records {seed}")
    wanted = {domain: n + (N_IN_DOMAIN if domain == "maths" else 0) for domain, n in POOL_COUNTS.items()}
    drawn = {domain: _distinct(DOMAINS[domain], rng, _EXCESS * n) for domain, n in wanted.items()}
    counts = {domain: count_tokens([text_of(record) for record in records]) for domain, records in drawn.items()}
    shortest = max(_quantile(n_tokens, 0.05) for n_tokens in counts.values())
    longest = min(_quantile(n_tokens, 0.95) for n_tokens in counts.values())
    picked = {
        domain: _pick_matched(drawn[domain], counts[domain], wanted[domain], shortest, longest) for domain in wanted
    }
    maths = picked["maths"]
    rng.shuffle(maths)
    in_domain, picked["maths"] = maths[:N_IN_DOMAIN], maths[N_IN_DOMAIN:]
    pool = [record for records in picked.values() for record in records]
    rng.shuffle(pool)
    return pool, in_domain


def to_json_lines(records: Iterable[Record]) -> bytes:
    """Spell records as JSON Lines in UTF-8."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode("utf-8")


def write_compressed(records: Iterable[Record], path: Path) -> None:
    """Write records as gzipped JSON Lines, without a timestamp so that equal records make equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(to_json_lines(records), mtime=0))


def _distinct(draw: Draw, rng: random.Random, n: int) -> list[Record]:
    found: dict[str, Record] = {}
    while len(found) < n:
        record = draw(rng)
        found.setdefault(text_of(record), record)
    return list(found.values())


def _quantile(values: Sequence[int], share: float) -> int:
    return sorted(values)[int(share * (len(values) - 1))]


def _pick_matched(
    records: Sequence[Record], n_tokens: Sequence[int], n: int, shortest: int, longest: int
) -> list[Record]:
    """Pick ``n`` records whose token counts are spread evenly from ``shortest`` to ``longest``."""
    by_length = sorted(range(len(records)), key=lambda i: (n_tokens[i], text_of(records[i])))
    lengths = [n_tokens[i] for i in by_length]
    picked = []
    for step in range(n):
        target = shortest + (longest - shortest) * (step + 0.5) / n
        at = bisect.bisect_left(lengths, target)
        if at == len(lengths) or (at and target - lengths[at - 1] < lengths[at] - target):
            at -= 1
        picked.append(records[by_length.pop(at)])
        lengths.pop(at)
    return picked
