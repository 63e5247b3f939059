"""Heatmaps of how profiles transfer."""

from __future__ import annotations

import io
import itertools
import sys

import numpy as np
import pytest
from PIL import Image

from nait_store.analysis.transfer import DomainSeparation, ProfilePair, ProfileTransfer
from nait_store.analysis.transfer_picture import draw_transfer
from nait_store.errors import InvalidInputError, MissingExtraError
from nait_store.pictures import form_of


def transfer(n_profiles: int, *, n_layers: int = 3, spearman: float | None = 0.25) -> ProfileTransfer:
    names = tuple(f"profile-{i}@1" for i in range(n_profiles))
    pairs = tuple(
        ProfilePair(one, other, 0.5, {layer: 0.1 * layer for layer in range(n_layers)}, spearman, 3, 0.3)
        for one, other in itertools.combinations(names, 2)
    )
    known = DomainSeparation(names[0], "8 samples", None, 8, 90, dict.fromkeys(names, 0.9))
    domains = (known, *(DomainSeparation(name, unknown="nobody knows") for name in names[1:]))
    return ProfileTransfer("pool@1", "price = '$5 \\foo$'", 90, names, "10%", 10, pairs, domains)


def pixels(picture: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"))


def test_something_is_drawn_and_what_is_not_known_is_grey() -> None:
    image = pixels(transfer(3, spearman=None).picture())
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    assert (image == (211, 211, 211)).all(axis=2).sum() > 10_000
    assert max(image.shape) < 4000


def test_many_profiles_and_layers_still_make_a_picture_of_a_size_to_look_at() -> None:
    assert max(pixels(draw_transfer(transfer(12, n_layers=48))).shape) < 4000


@pytest.mark.parametrize(("form", "beginning"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_each_format_is_the_same_twice_whatever_the_user_s_style(form: str, beginning: bytes) -> None:
    import matplotlib as mpl

    first = draw_transfer(transfer(2), form)
    assert first.startswith(beginning)
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 20}):
        assert draw_transfer(transfer(2), form) == first


def test_missing_matplotlib_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nait-store\[plots\]'"):
        transfer(2).picture()


@pytest.mark.parametrize(("url", "form"), [("a.png", "png"), ("s3://b/x.y/c.SVG", "svg"), ("/tmp/p.pdf", "pdf")])
def test_the_ending_says_the_format(url: str, form: str) -> None:
    assert form_of(url) == form


@pytest.mark.parametrize("url", ["picture", "a.b/picture", "picture.jpg", "png"])
def test_other_endings_are_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"use one of \.png, \.svg, \.pdf"):
        form_of(url)
