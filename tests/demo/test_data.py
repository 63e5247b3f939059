"""The shipped data and model are what the scripts make, and fair to the baselines they are compared with."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from tokenizers import Tokenizer

from nait_store.demo import files
from nait_store.demo.generate import N_IN_DOMAIN, POOL_COUNTS, pool_and_in_domain, text_of, to_json_lines
from nait_store.demo.vocabulary import Record


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(files.MODEL / "tokenizer.json"))


@pytest.fixture(scope="module")
def pool() -> list[Record]:
    return [json.loads(line) for line in files.read_data("pool").splitlines()]


@pytest.fixture(scope="module")
def maths() -> list[Record]:
    return [json.loads(line) for line in files.read_data("maths").splitlines()]


def count(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    return [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]


@pytest.fixture(scope="module")
def lengths(tokenizer: Tokenizer, pool: list[Record]) -> list[int]:
    """Token counts of the pool's records."""
    return count(tokenizer, [text_of(record) for record in pool])


def test_shipped_records_are_what_the_generator_draws(tokenizer: Tokenizer) -> None:
    pool, in_domain = pool_and_in_domain(lambda texts: count(tokenizer, list(texts)), seed=0)
    assert to_json_lines(pool) == files.read_data("pool")
    assert to_json_lines(in_domain) == files.read_data("maths")


def test_maths_is_at_most_a_quarter_of_the_pool(pool: list[Record]) -> None:
    domains = Counter(record["domain"] for record in pool)
    assert domains == POOL_COUNTS
    assert domains["maths"] <= 0.25 * len(pool)


def test_in_domain_records_are_maths_and_disjoint_from_the_pool(pool: list[Record], maths: list[Record]) -> None:
    assert len(maths) == N_IN_DOMAIN
    assert {record["domain"] for record in maths} == {"maths"}
    assert {text_of(record) for record in maths}.isdisjoint(text_of(record) for record in pool)


def test_every_record_is_there_once(pool: list[Record], maths: list[Record]) -> None:
    assert len({text_of(record) for record in pool}) == len(pool)
    assert len({text_of(record) for record in maths}) == len(maths)


@pytest.mark.parametrize("quantile", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_token_counts_have_the_same_quantiles_in_every_domain(
    pool: list[Record], lengths: list[int], quantile: float
) -> None:
    by_domain = {
        domain: np.quantile([n for n, r in zip(lengths, pool, strict=True) if r["domain"] == domain], quantile)
        for domain in POOL_COUNTS
    }
    for a, b in combinations(by_domain.values(), 2):
        assert a == pytest.approx(b, rel=0.05)


def test_ranking_by_length_does_not_find_maths(pool: list[Record], lengths: list[int]) -> None:
    is_maths = np.array([record["domain"] == "maths" for record in pool])
    n = len(pool) // 10
    for order in (np.argsort(-np.array(lengths), kind="stable"), np.argsort(lengths, kind="stable")):
        assert is_maths[order[:n]].mean() == pytest.approx(is_maths.mean(), abs=0.1)


def test_no_word_alone_gives_maths_away(pool: list[Record]) -> None:
    """Names, things, places and days are shared: the other domains use nearly all the words of the stories."""
    shared = {"dollars", "friends", "each", "Monday", "market", "apples", "Ada"}
    others = " ".join(text_of(record) for record in pool if record["domain"] != "maths").split()
    assert {word for word in shared if word not in {other.strip(".,?!'[]\"") for other in others}} <= {"dollars"}


def test_model_and_tokenizer_fit_in_four_megabytes() -> None:
    assert sum(path.stat().st_size for path in files.MODEL.iterdir()) <= 4_000_000


def test_inputs_are_laid_out_once(tmp_path) -> None:
    assert files.copy_inputs(tmp_path) is True
    assert files.copy_inputs(tmp_path) is False
    assert (tmp_path / "pool.jsonl").read_bytes() == files.read_data("pool")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {path.name for path in files.MODEL.iterdir()}
