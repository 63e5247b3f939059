from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nait_store.errors import InvalidInputError
from nait_store.refs import Kind, Reference, check_name, parse_reference

_NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


@given(_NAMES, st.sampled_from(Kind), st.none() | st.integers(1, 10**9))
def test_references_survive_their_own_text(name: str, kind: Kind, version: int | None) -> None:
    reference = Reference(kind, name, version=version)
    assert parse_reference(str(reference), kind) == reference
    assert parse_reference(reference.qualified, kind) == reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pool", Reference(Kind.SET, "pool")),
        ("pool@latest", Reference(Kind.SET, "pool")),
        ("pool@3", Reference(Kind.SET, "pool", version=3)),
        ("pool@prod", Reference(Kind.SET, "pool", alias="prod")),
        ("set:pool@3", Reference(Kind.SET, "pool", version=3)),
        ("set", Reference(Kind.SET, "set")),
        ("1", Reference(Kind.SET, "1")),
    ],
)
def test_what_references_mean(text: str, expected: Reference) -> None:
    assert parse_reference(text, Kind.SET) == expected


@pytest.mark.parametrize(
    "text", ["", "pool@", "pool@0", "pool@03", "pool@-1", "pool@1@2", "pool@A", "pool@x/y", "@1", "pool @1", "pool\n"]
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_reference(text, Kind.SET)


def test_a_reference_to_another_kind_is_refused_with_advice() -> None:
    with pytest.raises(InvalidInputError, match="names a profile where a set is expected"):
        parse_reference("profile:math@2", Kind.SET)


@pytest.mark.parametrize(
    "name", ["../x", "a b", "", "x" * 300, "x" * 65, "A", ".hidden", "-x", "x/y", "x\0", "x\n", "ä"]
)
def test_hostile_names_are_refused_and_shown_short(name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_name(name, Kind.SET)
    assert len(str(caught.value)) < 400
    assert caught.value.next_step is not None


@pytest.mark.parametrize("name", ["a", "0", "alpaca-52k", "a.b_c-d", "x" * 64])
def test_usable_names_are_returned(name: str) -> None:
    assert check_name(name, Kind.PROFILE) == name
