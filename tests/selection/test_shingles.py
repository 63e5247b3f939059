"""Texts cut into shingles, against sets of word tuples made character by character."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nait_store.selection.redundancy.shingles import shingles_of

ALONE = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI")


def words(text: str) -> list[str]:
    found: list[str] = []
    begun = False
    for one in text.casefold():
        if not (one.isalnum() or unicodedata.category(one) in ("Mn", "Mc")):
            begun = False
        elif unicodedata.name(one, "").startswith(ALONE):
            found.append(one)
            begun = False
        elif begun:
            found[-1] += one
        else:
            found.append(one)
            begun = True
    return found


def shingles(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    if not found:
        return {("whole", text.casefold())}
    return {tuple(found[i : i + 3]) for i in range(max(1, len(found) - 2))}


def jaccard(a: set[object], b: set[object]) -> float:
    return len(a & b) / len(a | b)


TEXTS = st.text(st.sampled_from("ab A.é9’_-\n今日はกΣß\u0301\0😀"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, max_size=8))
def test_texts_have_in_common_what_their_word_tuples_have(texts: list[str]) -> None:
    found = shingles_of(texts)
    assert len(found) == len(texts)
    expected = [shingles(text) for text in texts]
    for i in range(len(texts)):
        assert np.array_equal(found.of(i), np.unique(found.of(i)))
        assert len(found.of(i)) == len(expected[i])
        for j in range(i):
            assert jaccard(set(found.of(i).tolist()), set(found.of(j).tolist())) == jaccard(expected[i], expected[j])


@pytest.mark.parametrize("text", ["", "!?", "\ud800 lone", "one", "one two"])
def test_a_text_of_few_words_or_none_is_one_shingle(text: str) -> None:
    found = shingles_of(["before and after that", text, "after it comes this"])
    assert len(found.of(1)) == 1
    assert np.array_equal(shingles_of([text]).of(0), found.of(1))


def test_a_long_text_is_cut_as_a_short_one_is() -> None:
    text = " ".join(f"w{i}" for i in range(70_000))
    found = shingles_of(["x", text])
    assert len(found.of(1)) == 69_998
    assert np.isin(shingles_of([text[-60:].partition(" ")[2]]).of(0), found.of(1)).all()
