"""The card as sentences, as a page and as pictures."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nait_store.errors import MissingExtraError
from nait_store.registry.cards.findings import decimals, findings
from nait_store.registry.cards.page import CardSample, ProfileCard
from nait_store.registry.cards.pictures import draw_pictures
from nait_store.registry.recipes import choose_recipe
from nait_store.schemas.profile import LayerStatistics, ProfileRecord, SampleSource
from nait_store.schemas.quality_card import LayerQuality, LearningPoint, QualityCard, RankedSample, Separation
from nait_store.schemas.record import Provenance
from nait_store.testing.stores import SETTINGS, fake_identity

POOL = SampleSource(set_name="pool", version=3, limit=512, seed=0, n_samples=500, sample_ids_sha256="0" * 64)
N_LAYERS = 3


def record(card: str = "", warnings: tuple[str, ...] = (), author: str = "me@laptop") -> ProfileRecord:
    identity = fake_identity()
    return ProfileRecord(
        name="math",
        recipe=choose_recipe("default"),
        recipe_sha256="1" * 64,
        capture_id=identity.capture_id,
        identity=identity,
        settings=SETTINGS,
        layers=tuple(range(N_LAYERS)),
        n_neurons=8,
        has_offset=False,
        directions_sha256="2" * 64,
        source=SampleSource(set_name="gsm8k", version=2, n_samples=64, sample_ids_sha256="3" * 64),
        statistics=tuple(
            LayerStatistics(layer=layer, explained_variance_ratio=0.5, sign_margin=2.0) for layer in range(N_LAYERS)
        ),
        warnings=warnings,
        files=(),
        card=card,
        provenance=Provenance(created_at=datetime(2026, 11, 26, tzinfo=UTC), author=author, writer="nait-store 0.1.0"),
    )


def quality(*, separated: bool = True, draws: tuple[float, ...] = (0.9, 0.97), **changes: Any) -> QualityCard:
    separation = Separation(
        against=POOL, n_folds=5, auc=0.91, lowest_fold_auc=0.88, ranking_agreement=0.995, length_correlation=0.1
    )
    points = [
        LearningPoint(n_samples=16 * 2**i, profile_cosine=0.98, draws_cosine=cosine) for i, cosine in enumerate(draws)
    ]
    fields: dict[str, Any] = {
        "revision": 1,
        "n_samples": 64,
        "n_draws": 8,
        "layers": tuple(
            LayerQuality(
                layer=layer,
                halves_cosine=0.9 + 0.02 * layer,
                lowest_halves_cosine=0.8,
                auc=0.8 if separated else None,
            )
            for layer in range(N_LAYERS)
        ),
        "learning_curve": tuple(points),
        "length_correlation": -0.2,
        "separation": separation if separated else None,
        "top": (RankedSample(position=0, score=1.5),),
        "bottom": (RankedSample(position=3, score=-0.5),),
    }
    return QualityCard(**{**fields, **changes})


def said(card: QualityCard) -> dict[str, str]:
    return dict(findings(card))


def test_findings_give_the_numbers_in_sentences() -> None:
    assert said(quality()) == {
        "stability": "cosine 0.920 between the directions of two halves of 64 samples, mean over layers; 0.900 in "
        "layer 0, the lowest",
        "learning": "cosine to the profile 0.980 with 16, 0.980 with 32 samples: 32 in-domain samples would have done",
        "separation": "area under the curve 0.910 for in-domain samples held out, against 500 samples of pool@3 "
        "(lowest of 5 folds 0.880); two halves of the in-domain samples rank them alike with a correlation of 0.995",
        "length": "rank correlation of score and content tokens -0.200 among in-domain samples, 0.100 among samples of "
        "pool@3",
    }


@pytest.mark.parametrize(
    ("draws", "verdict"),
    [
        ((0.99, 0.99), "16 in-domain samples would have done"),
        ((0.5, 0.97), "32 in-domain samples would have done"),
        ((0.99, 0.9), "more in-domain samples would still move it"),
        ((0.5, 0.9), "more in-domain samples would still move it"),
    ],
)
def test_learning_curve_says_how_many_samples_it_takes(draws: tuple[float, ...], verdict: str) -> None:
    assert said(quality(draws=draws))["learning"].endswith(verdict)


def test_findings_say_what_was_not_measured() -> None:
    layers = (LayerQuality(layer=0, halves_cosine=None, lowest_halves_cosine=None, auc=None),)
    found = said(quality(separated=False, layers=layers, learning_curve=(), length_correlation=None))
    assert all(sentence.startswith("not measured: ") for sentence in found.values())


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (1.0, "1.000"), (0.99996, "0.999"), (-0.99996, "-0.999"), (-0.0001, "0.000"), (0.12345, "0.123")],
)
def test_decimals_do_not_round_to_perfection(value: float | None, text: str) -> None:
    assert decimals(value) == text


def test_page_shows_origin_findings_layers_and_samples() -> None:
    samples = (CardSample("s1", 1.5, "two and two"),), (CardSample("s9", -0.5, "hello"),)
    page = ProfileCard("math@3", record("Sums."), quality(), *samples).markdown([("layers.png", "Layers")])
    lines = page.splitlines()
    assert lines[:3] == ["# math@3", "", "Sums."]
    assert "- **made from**: 64 samples of gsm8k@2" in lines
    assert any(line.startswith("- **separation**: area under the curve 0.910") for line in lines)
    assert "![Layers](layers.png)" in lines
    assert "|     0 |              0.500 |        2.00 |        0.900 |                0.800 |" in lines
    assert "|   1.5 | s1     | two and two |" in lines
    assert "|  -0.5 | s9     | hello |" in lines


def test_page_leaves_out_columns_that_nothing_was_measured_for() -> None:
    page = ProfileCard("math@3", record(), None).markdown()
    assert "Nothing was measured when this profile was built." in page
    assert "| layer | explained variance | sign margin |" in page.splitlines()


def test_page_says_why_there_are_no_samples() -> None:
    page = ProfileCard("math@3", record(), quality(), unknown="there is no set 'gsm8k'").markdown()
    assert "In-domain samples are not shown: there is no set 'gsm8k'." in page


def test_page_shows_warnings_of_the_build_and_of_the_card_once() -> None:
    layers = (LayerQuality(layer=0, halves_cosine=0.1, lowest_halves_cosine=0.0, auc=0.9),)
    first = ProfileCard("math@3", record(), quality(layers=layers))
    (measured,) = first.warnings
    both = ProfileCard("math@3", record(warnings=("few samples", measured)), quality(layers=layers))
    assert both.warnings == ("few samples", measured)
    assert both.markdown().count("> **Warning:**") == 2


HOSTILE = (
    "a|b\n# head <img src=x onerror=alert(1)> [click](javascript:x) `code` ![i](http://x/y.png) \x1b[31mred\x1b[0m"
)


@pytest.mark.parametrize("where", ["text", "sample_id", "card", "warning", "author"])
def test_hostile_text_stays_text(where: str) -> None:
    sample = CardSample(HOSTILE if where == "sample_id" else "s1", 1.0, HOSTILE if where == "text" else "t")
    made = record(
        HOSTILE if where == "card" else "",
        (HOSTILE,) if where == "warning" else (),
        HOSTILE if where == "author" else "me@laptop",
    )
    page = ProfileCard("math@3", made, quality(), (sample,), (sample,)).markdown()
    assert "\x1b" not in page
    assert "\n# head" not in page
    bare = page.replace("\\\\", "").replace("\\<", "").replace("\\[", "").replace("\\`", "").replace("\\|", "")
    assert "<img" not in bare
    assert "[click" not in bare
    assert "![i" not in bare
    assert "`" not in bare
    assert "a|b" not in bare


def test_pictures_are_drawn_and_described() -> None:
    pictures = draw_pictures(ProfileCard("math@3", record(), quality()))
    assert [picture.file for picture in pictures] == ["layers.png", "learning-curve.png"]
    assert "cosine of two halves" in pictures[0].description
    for picture in pictures:
        with Image.open(io.BytesIO(picture.png)) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10  # something is drawn
            assert image.info.get("Software") is None


def test_same_card_gives_the_same_pictures_whatever_the_user_s_style() -> None:
    import matplotlib as mpl

    card = ProfileCard("math@3", record(), quality())
    first = draw_pictures(card)
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 20}):
        assert draw_pictures(card) == first


def test_profile_without_a_card_has_a_picture_of_its_statistics() -> None:
    (picture,) = draw_pictures(ProfileCard("math@3", record(), None))
    assert picture.description.startswith("Per layer: explained variance, sign margin;")


def test_profile_without_statistics_has_neither_a_table_nor_pictures_of_them() -> None:
    card = ProfileCard("math@3", record().model_copy(update={"statistics": ()}), None)
    assert draw_pictures(card) == ()
    assert "## Layers" not in card.markdown()


def test_missing_matplotlib_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nait-store\[plots\]'"):
        draw_pictures(ProfileCard("math@3", record(), None))
