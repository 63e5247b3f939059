"""How profiles transfer: cosines, correlations, overlaps and areas against SciPy, scikit-learn and plain Python."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import nait_store
from nait_store.analysis.transfer import ProfileTransfer
from nait_store.errors import CorruptChunkError, IncompatibleError, InvalidInputError, NotFoundError
from nait_store.testing.stores import build_set, fake_identity
from tests.selection.choices import N_SAMPLES, PROFILES, build_pool

NAMES = ("math", "code", "own")
REFERENCES = tuple(f"{name}@1" for name in NAMES)
N_OWN = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> nait_store.Store:
    """Profiles of sets of their own, one built from the candidates, one of other profiles, one of another model."""
    made, _ = build_pool(tmp_path_factory.mktemp("transfer"))
    made.profiles.build("own", source="pool", where="source = 'orca'", limit=N_OWN)
    made.profiles.combine("both", {"math": 1.0, "chat": 1.0})
    build_set(made.location, "elsewhere", 20, seed=9, identity=fake_identity("other"))
    made.profiles.build("foreign", source="elsewhere")
    return made


@pytest.fixture(scope="module")
def found(store: nait_store.Store) -> ProfileTransfer:
    return store.analyses.transfer(*NAMES, on="pool")


@pytest.fixture
def damaged(store: nait_store.Store, tmp_path: Path) -> nait_store.Store:
    """A copy, to be damaged."""
    return nait_store.open(str(shutil.copytree(store.url, tmp_path / "copy")))


def by_hand(store: nait_store.Store, set_name: str, profile: str) -> dict[str, float]:
    """Scores in float64 from the stored activations, one sample after the other."""
    opened = store.profiles.open(profile)
    feature, directions = opened.record.recipe.feature, opened.directions().astype(np.float64)
    scores = {}
    for segment in store.sets.open(set_name).segments:
        ids = segment.samples(["sample_id"]).column("sample_id").to_pylist()
        for sample_id, vectors in zip(ids, segment.read(feature).astype(np.float64), strict=True):
            score = 0.0
            for vector, direction in zip(vectors, directions, strict=True):
                length = np.linalg.norm(vector) if opened.record.recipe.metric == "cosine" else 1.0
                score += float(vector @ direction / length)
            scores[sample_id] = score
    return scores


def area(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> float:
    labels = np.r_[np.ones(len(positives)), np.zeros(len(negatives))]
    return float(roc_auc_score(labels, np.r_[positives, negatives]))


def test_it_says_what_was_compared(found: ProfileTransfer) -> None:
    assert (found.set_ref, found.where, found.n_candidates) == ("pool@1", None, N_SAMPLES)
    assert found.profiles == REFERENCES
    assert (found.top, found.n_best, found.overlap_by_chance) == ("10%", 9, 0.1)
    assert [(pair.first, pair.second) for pair in found.pairs] == list(itertools.combinations(REFERENCES, 2))
    assert [domain.profile for domain in found.domains] == list(REFERENCES)
    assert found.warnings == ()


def test_cosines_are_those_of_the_directions(store: nait_store.Store, found: ProfileTransfer) -> None:
    for pair in found.pairs:
        v, w = (store.profiles.open(one).directions().astype(np.float64) for one in (pair.first, pair.second))
        expected = {i: math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b))
                    for i, (a, b) in enumerate(zip(v, w, strict=True))}  # fmt: skip
        assert pair.cosines == pytest.approx(expected, abs=1e-12)
        assert pair.cosine == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
        assert pair.extremes == (min(expected, key=expected.__getitem__), max(expected, key=expected.__getitem__))


def test_profiles_of_some_layers_are_compared_in_those_that_both_have(store: nait_store.Store) -> None:
    store.profiles.build("first-layer", source="of-math", layers=[0], metric="cosine")
    (pair,) = store.analyses.transfer("math", "first-layer", on="pool").pairs
    assert pair.cosines == pytest.approx({0: 1.0}, abs=1e-6)
    assert pair.cosine == pytest.approx(1.0, abs=1e-6)


def test_spearman_is_scipys(store: nait_store.Store, found: ProfileTransfer) -> None:
    for pair in found.pairs:
        one, other = by_hand(store, "pool", pair.first), by_hand(store, "pool", pair.second)
        assert pair.spearman == pytest.approx(spearmanr([one[i] for i in one], [other[i] for i in one]).statistic)


@pytest.mark.parametrize("top", ["10%", "33%", 1, "90"])
def test_overlap_is_that_of_what_select_takes(store: nait_store.Store, top: str | int) -> None:
    found = store.analyses.transfer(*NAMES, on="pool", top=top)
    chosen = {
        one: set(store.select("pool", profile=one, top=top).rows.column("sample_id").to_pylist()) for one in REFERENCES
    }
    for pair in found.pairs:
        first, second = chosen[pair.first], chosen[pair.second]
        assert (found.n_best, pair.n_common) == (len(first), len(first & second))
        assert pair.overlap == len(first & second) / len(first)


def test_area_of_in_domain_samples_against_all_candidates(store: nait_store.Store, found: ProfileTransfer) -> None:
    for domain in found.domains[:2]:
        source = f"of-{domain.profile.removesuffix('@1')}"
        assert domain.what == f"8 in-domain samples of {source}@1"
        assert (domain.where, domain.n_samples, domain.n_others, domain.unknown) == (None, 8, N_SAMPLES, "")
        for profile in REFERENCES:
            own, others = by_hand(store, source, profile), by_hand(store, "pool", profile)
            expected = area(np.array(list(own.values())), np.array(list(others.values())))
            assert domain.aucs[profile] == pytest.approx(expected, abs=1e-12)


def test_in_domain_samples_among_the_candidates_are_told_from_the_others(
    store: nait_store.Store, found: ProfileTransfer
) -> None:
    in_domain = {
        sample_id
        for (sample_id,) in store.sql(
            "SELECT sample_id FROM samples('pool') WHERE source = 'orca' "
            f"ORDER BY sha256('0:' || sample_id), sample_id LIMIT {N_OWN}"
        )
    }
    domain = found.domains[2]
    assert (domain.n_samples, domain.n_others) == (N_OWN, N_SAMPLES - N_OWN)
    for profile in REFERENCES:
        scores = by_hand(store, "pool", profile)
        own = np.array([score for sample_id, score in scores.items() if sample_id in in_domain])
        others = np.array([score for sample_id, score in scores.items() if sample_id not in in_domain])
        assert domain.aucs[profile] == pytest.approx(area(own, others), abs=1e-12)


def test_domain_by_a_condition_is_within_the_candidates(store: nait_store.Store) -> None:
    """Of the samples without a source the condition is neither true nor false: they are others."""
    found = store.analyses.transfer(
        "math", "code", on="pool", where="n_tokens > 7", domains={"code@1": "source = 'code'"}
    )
    rows = store.sql("SELECT sample_id, source FROM samples('pool') WHERE n_tokens > 7").fetchall()
    domain = found.domains[1]
    n_domain = sum(source == "code" for _, source in rows)
    assert found.n_candidates == len(rows) < N_SAMPLES
    assert (domain.what, domain.where) == ("candidates where source = 'code'", "source = 'code'")
    assert (domain.n_samples, domain.n_others) == (n_domain, len(rows) - n_domain)
    for profile in ("math@1", "code@1"):
        scores = by_hand(store, "pool", profile)
        own = np.array([scores[sample_id] for sample_id, source in rows if source == "code"])
        others = np.array([scores[sample_id] for sample_id, source in rows if source != "code"])
        assert domain.aucs[profile] == pytest.approx(area(own, others), abs=1e-12)
    assert found.domains[0].where is None


def test_profile_that_was_made_of_others_ranks_and_has_no_domain(store: nait_store.Store) -> None:
    found = store.analyses.transfer("math", "both", on="pool")
    own, none = found.domains
    assert set(own.aucs) == {"math@1", "both@1"}
    assert none.aucs == {}
    assert none.unknown == "both@1 was made from 1 × math@1 + 1 × chat@1, not from samples"
    given = store.analyses.transfer("math", "both", on="pool", domains={"both": "source = 'orca'"})
    assert set(given.domains[1].aucs) == {"math@1", "both@1"}


def test_profile_of_all_candidates_has_nothing_to_be_told_from(store: nait_store.Store) -> None:
    store.profiles.build("everything", source="pool")
    found = store.analyses.transfer("math", "everything", on="pool")
    assert found.domains[1].unknown == "everything@1 was built from all of the candidates"


def test_deleted_in_domain_set_is_said(damaged: nait_store.Store) -> None:
    damaged.sets.delete("of-math", force=True)
    math_domain, code_domain = damaged.analyses.transfer("math", "code", on="pool").domains
    assert "of-math@1 was deleted" in math_domain.unknown
    assert set(code_domain.aucs) == {"math@1", "code@1"}


def test_without_names_every_profile_that_applies_is_compared(damaged: nait_store.Store) -> None:
    for name in damaged.profiles.names():
        if name not in (*PROFILES, "foreign"):
            damaged.profiles.delete(name, force=True)
    damaged.profiles.build("math", source="of-math", method="mean")
    found = damaged.analyses.transfer(on="pool")
    assert found.profiles == ("chat@1", "code@1", "math@2")


def test_rows_are_every_ordered_pair(found: ProfileTransfer) -> None:
    rows = found.rows().to_pylist()
    assert [(row["profile"], row["other"]) for row in rows] == list(itertools.product(REFERENCES, repeat=2))
    for row in rows:
        domain = next(one for one in found.domains if one.profile == row["other"])
        assert row["auc"] == domain.aucs[row["profile"]]
        if row["profile"] == row["other"]:
            assert (row["cosine"], row["spearman"], row["n_common"], row["overlap"]) == (1.0, 1.0, 9, 1.0)
        else:
            pair = found.pair(row["other"], row["profile"])
            assert (row["cosine"], row["spearman"], row["n_common"]) == (pair.cosine, pair.spearman, pair.n_common)
            assert {0: row["cosine_0"], 1: row["cosine_1"]} == pair.cosines


def test_two_candidates_have_no_correlation(store: nait_store.Store) -> None:
    found = store.analyses.transfer("math", "code", on="pool", where="sample_id IN ('s000000', 's000001')", top=1)
    assert (found.n_candidates, found.pairs[0].spearman) == (2, None)


@pytest.mark.parametrize(
    ("profiles", "options", "error", "says"),
    [
        (("math",), {}, InvalidInputError, "there is only math@1"),
        (("math", "math@1"), {}, InvalidInputError, "math@1 is named twice"),
        (("math", "maht"), {}, NotFoundError, "'math'"),
        (("math", "code"), {"on": "pol"}, NotFoundError, "'pool'"),
        (("math", "foreign"), {}, IncompatibleError, "foreign@1 does not apply to set pool@1"),
        (("math", "code"), {"top": 91}, InvalidInputError, "pool@1 has 90 candidates"),
        (("math", "code"), {"top": "0%"}, InvalidInputError, "selects nothing"),
        (("math", "code"), {"where": "false"}, InvalidInputError, "nothing to select"),
        (("math", "code"), {"where": "n_tokens"}, InvalidInputError, "not true or false"),
        (("math", "code"), {"where": "sorce = 'code'"}, NotFoundError, "source"),
        (("math", "code"), {"domains": {"math": "sorce = 'code'"}}, NotFoundError, "source"),
        (("math", "code"), {"domains": {"math": "true); SELECT (1"}}, InvalidInputError, "not one SQL expression"),
        (("math", "code"), {"domains": {"math": "n_tokens > 0"}}, InvalidInputError, "is every candidate"),
        (("math", "code"), {"domains": {"math": "n_tokens > 99"}}, InvalidInputError, "is no candidate"),
        (("math", "code"), {"domains": {"chat": "true"}}, InvalidInputError, "none of those that are compared"),
        (("math", "code"), {"domains": {"math": "true", "math@1": "true"}}, InvalidInputError, "given twice"),
    ],
)  # fmt: skip
def test_slips(
    store: nait_store.Store,
    profiles: tuple[str, ...],
    options: dict[str, object],
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        store.analyses.transfer(*profiles, **{"on": "pool", **options})


def test_set_that_no_profile_applies_to(store: nait_store.Store) -> None:
    build_set(store.location, "alien", 5, seed=2, identity=fake_identity("alien"))
    with pytest.raises(InvalidInputError, match="there is none"):
        store.analyses.transfer(on="alien")


def test_profiles_without_a_common_layer_are_refused(store: nait_store.Store) -> None:
    for layer in (0, 1):
        store.profiles.build(f"only-{layer}", source="of-math", layers=[layer])
    with pytest.raises(IncompatibleError, match="no layer in common"):
        store.analyses.transfer("only-0", "only-1", on="pool")


def _write_nan(store: nait_store.Store, set_name: str) -> None:
    (chunk, *_) = sorted(Path(store.url, "activations", set_name).rglob("data.zarr/mean/c/*/*/*"))
    chunk.write_bytes(np.full(chunk.stat().st_size // 2, np.nan, np.float16).tobytes())
    shutil.rmtree(Path(store.url, "scores"))


def test_activations_of_candidates_that_are_no_numbers(damaged: nait_store.Store) -> None:
    _write_nan(damaged, "pool")
    with pytest.raises(InvalidInputError, match="not finite"):
        damaged.analyses.transfer("math", "code", on="pool")


def test_activations_of_in_domain_samples_that_are_no_numbers(damaged: nait_store.Store) -> None:
    _write_nan(damaged, "of-code")
    with pytest.raises(CorruptChunkError, match=r"of code@1 in of-code@1 .*not finite"):
        damaged.analyses.transfer("math", "code", on="pool")
