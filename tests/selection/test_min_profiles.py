"""``min_profiles``: the samples that several profiles agree on, against plain loops and against the recorded query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nait_store
from nait_store.errors import InvalidInputError
from nait_store.refs import Kind, parse_reference
from nait_store.store.lineage.commands import select_arguments
from nait_store.testing.stores import build_set
from tests.selection.choices import PROFILES, Pool, build_pool, combined, ranks_of, share, take

Built = tuple[nait_store.Store, Pool]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_pool(tmp_path_factory.mktemp("agreeing"))


def ids(selection: Any) -> list[str]:
    return selection.rows.column("sample_id").to_pylist()


def agreed(
    pool: Pool, least: int, top: str, combine: str, *, names: tuple[str, ...] = PROFILES, lowest: bool = False
) -> list[int]:
    """Candidates in the top of so many profiles, in the combined order."""
    ranks = ranks_of(pool, pool.of(names), lowest=lowest)
    n_profiles = (ranks <= share(top, len(pool.ids))).sum(axis=0)
    order, _, _ = combined(pool, names, [1.0] * len(names), combine, lowest=lowest)
    return [i for i in order if n_profiles[i] >= least]


@settings(max_examples=20, deadline=None)
@given(
    least=st.integers(1, 3),
    top=st.sampled_from(["50%", "70%", "30", "100%"]),
    combine=st.sampled_from(["union", "sum", "min", "rrf", "norm"]),
    lowest=st.booleans(),
    narrowed=st.booleans(),
)
def test_it_takes_what_so_many_profiles_have_in_their_top(
    built: Built, least: int, top: str, combine: str, lowest: bool, narrowed: bool
) -> None:
    store, pool = built
    candidates = pool.where(pool.n_tokens > 8) if narrowed else pool
    selection = store.select(
        "pool",
        profile=PROFILES,
        min_profiles=least,
        top=top,
        combine=combine,
        strategy="lowest" if lowest else "alignment",
        where="n_tokens > 8" if narrowed else None,
    )
    expected = agreed(candidates, least, top, combine, lowest=lowest)
    assert ids(selection) == [candidates.ids[i] for i in expected]
    assert selection.n_candidates == len(candidates.ids)
    assert store.sql(selection.query).arrow().column("sample_id").to_pylist() == ids(selection)


def test_scores_are_those_over_all_candidates(built: Built) -> None:
    store, pool = built
    selection = store.select("pool", profile=PROFILES, min_profiles=2, top="50%", combine="sum")
    _, scores, _ = combined(pool, PROFILES, [1.0] * 3, "sum")
    expected = [scores[i] for i in agreed(pool, 2, "50%", "sum")]
    assert np.allclose(selection.rows.column("score").to_numpy(), expected)


def test_without_a_number_the_top_is_a_tenth_whatever_else_limits(built: Built) -> None:
    store, pool = built
    selection = store.select("pool", profile=PROFILES, min_profiles=1, budget_tokens=120)
    assert selection.request.top == "10%"
    fits = lambda taken, i: int(pool.n_tokens[taken].sum() + pool.n_tokens[i]) <= 120  # noqa: E731
    assert ids(selection) == [pool.ids[i] for i in take(agreed(pool, 1, "10%", "union"), fits)]


def test_lengths_are_matched_by_others_too(built: Built) -> None:
    store, pool = built
    options: Any = {"profile": PROFILES, "min_profiles": 3, "top": "60%"}
    best = set(ids(store.select("pool", **options)))
    drawn = ids(store.select("pool", strategy="length-matched", **options))
    assert len(drawn) == len(best)
    assert not set(drawn) <= best
    assert sorted(pool.n_tokens[np.isin(pool.ids.astype(str), drawn)]) == sorted(
        pool.n_tokens[np.isin(pool.ids.astype(str), list(best))]
    )


def test_duplicates_are_dropped_out_of_what_they_agree_on(built: Built) -> None:
    """Every text stands twice in the set: its better-ranked sample is taken, if that is agreed on."""
    store, _ = built
    texts = [f"the text {i // 2}" for i in range(60)]
    build_set(store.location, "doubled", 60, seed=4, user_fields={"instruction": texts, "output": texts})
    options: Any = {"profile": PROFILES, "min_profiles": 2, "top": "50%", "combine": "sum"}
    agreeing = ids(store.select("doubled", **options))
    first = {int(sample_id[1:]) // 2: sample_id for sample_id in reversed(agreeing)}
    chosen = ids(store.select("doubled", drop_duplicates=["exact"], **options))
    assert chosen == [sample_id for sample_id in agreeing if sample_id in first.values()]
    assert 0 < len(chosen) < len(agreeing)


def test_saved_it_is_made_again_and_described(built: Built) -> None:
    store, _ = built
    options: Any = {"min_profiles": 2, "top": "40%", "combine": "sum"}
    selection = store.select("pool", profile=PROFILES, **options)
    saved = store.selections.save("agreed", selection)
    assert saved.record.min_profiles == 2
    assert store.selections.verify("agreed").identical
    assert store.selections.show("agreed").controls == {"combine": "sum", "min_profiles": 2}
    set_ref, *profiles = (parse_reference(one, kind) for one, kind in (
        (saved.record.set_ref, Kind.SET), *((one.reference, Kind.PROFILE) for one in saved.record.profiles)
    ))  # fmt: skip
    arguments = select_arguments(saved.record, "", set_ref, profiles)
    assert "--min-profiles 2" in " ".join(arguments)


def test_record_without_it_is_written_as_before(built: Built) -> None:
    store, _ = built
    saved = store.selections.save("usual", store.select("pool", profile=PROFILES))
    assert b"min_profiles" not in saved.record.to_json_bytes()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"min_profiles": 4}, "not between 1 and the number of profiles, 3"),
        ({"min_profiles": 0}, "not between 1 and the number of profiles, 3"),
        ({"min_profiles": 1, "profile": "math"}, "for several profiles"),
        ({"min_profiles": 1, "profile": None, "strategy": "random"}, "the number of profiles, 0"),
        ({"min_profiles": 2, "combine": "sum", "knee": True}, "what the profiles agree on"),
        ({"min_profiles": 2, "per": "source"}, "what the profiles agree on"),
        ({"min_profiles": 2, "quota": "source=code:50%"}, "what the profiles agree on"),
        ({"min_profiles": 2, "top": 91}, "90 candidates"),
        ({"min_profiles": 3, "top": 1}, "no candidate is in the top 1 of 3 profiles or more"),
    ],
)
def test_slips(built: Built, options: dict[str, Any], says: str) -> None:
    store, _ = built
    with pytest.raises(InvalidInputError, match=says):
        store.select("pool", **{"profile": PROFILES, **options})


def test_the_summary_says_it(built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nait_store.cli.main import main

    store, _ = built
    names = [word for name in PROFILES for word in ("--profile", name)]
    arguments = ["select", "--from", "pool", *names, "--min-profiles", "2", "--top", "40%"]
    assert main(["--store", store.url, *arguments, "--out", str(tmp_path / "agreed.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "the union of math@1, code@1 and chat@1, in the top 40% of at least 2 of them" in out
