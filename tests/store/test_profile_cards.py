"""Cards of the profiles of a store: what the build measured, measured anew, with samples, and as files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import nait_store
from nait_store.errors import AlreadyExistsError, InvalidInputError, MissingExtraError, NotFoundError
from nait_store.testing.stores import build_set


def test_card_of_the_build_is_what_is_measured_anew(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths", card_against="pool")
    built = store.profiles.card("math")
    measured = store.profiles.card("math", against="pool")
    assert built.quality is not None
    assert built.quality.separation is not None
    assert built == measured


@pytest.mark.parametrize("recipe", ["default", "nait-paper"])
def test_contrastive_card_measured_anew_is_that_of_the_build(store: nait_store.Store, recipe: str) -> None:
    build_set(store.location, "both", 30, features=("mean", "drift"), first=300, seed=7)  # type: ignore[arg-type]
    store.profiles.build("math", source="maths", against="both", recipe=recipe)
    assert store.profiles.card("math") == store.profiles.card("math", against="both")


def test_samples_of_a_card_are_those_that_sql_ranks_first_and_last(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths", where="n_content_tokens > 4")
    card = store.profiles.card("math")
    ranked = store.sql(
        "SELECT sample_id, score, record FROM alignment('maths', 'math') JOIN samples('maths') USING (sample_id) "
        "WHERE n_content_tokens > 4 ORDER BY score DESC"
    ).fetchall()
    assert [sample.sample_id for sample in card.top] == [row[0] for row in ranked[:5]]
    assert [sample.sample_id for sample in card.bottom] == [row[0] for row in ranked[::-1][:5]]
    assert [sample.score for sample in card.top] == pytest.approx([row[1] for row in ranked[:5]], abs=1e-5)
    assert card.top[0].text == f"do {ranked[0][0]} | done {ranked[0][0]}"


def test_profile_without_a_card_is_measured_when_asked_for(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths", quality_card=False)
    assert store.profiles.card("math", measure=False).quality is None
    assert store.profiles.card("math").quality is not None
    assert store.profiles.open("math").quality_card() is None


def test_card_outlives_its_in_domain_set_without_the_samples(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    store.sets.delete("maths", force=True)
    card = store.profiles.card("math")
    assert card.quality is not None
    assert (card.top, card.bottom) == ((), ())
    assert "maths" in card.unknown
    with pytest.raises(NotFoundError):
        store.profiles.card("math", against="pool")


def test_samples_are_not_looked_up_in_a_set_that_holds_others(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    gone = store.profiles.card("math").top[0].sample_id
    store.purge("maths", ids=[gone])
    card = store.profiles.card("math")
    assert card.top == ()
    assert "no longer holds all samples" in card.unknown
    assert gone not in card.markdown()


def test_damaged_card_is_found_by_verify(store: nait_store.Store) -> None:
    profile, _ = store.profiles.build("math", source="maths")
    path = f"{profile.folder}/card.json"
    store.location.write_bytes(path, store.location.read_bytes(path).replace(b'"n_draws":8', b'"n_draws":7'))
    findings = [finding for finding in store.verify().errors if finding.path.endswith("card.json")]
    assert findings
    assert findings[0].place == "quality card"


def test_page_and_pictures_are_written(store: nait_store.Store, tmp_path: Path) -> None:
    store.profiles.build("math", source="maths", card_against="pool")
    folder = tmp_path / "new" / "card"
    written = store.profiles.write_card("math", str(folder))
    names = ["CARD.md", "layers.png", "learning-curve.png"]
    assert [Path(url).name for url in written.urls] == names
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    page = (folder / "CARD.md").read_text(encoding="utf-8")
    assert page.startswith("# math@1\n")
    assert "](layers.png)" in page
    assert "](learning-curve.png)" in page


def test_page_goes_without_pictures(store: nait_store.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    store.profiles.build("math", source="maths")
    store.profiles.write_card("math", str(tmp_path / "card"), pictures=False)
    assert [path.name for path in (tmp_path / "card").iterdir()] == ["CARD.md"]
    with pytest.raises(MissingExtraError, match="matplotlib"):
        store.profiles.write_card("math", str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_files_that_exist_are_not_replaced_unasked(store: nait_store.Store, tmp_path: Path) -> None:
    store.profiles.build("math", source="maths")
    (tmp_path / "CARD.md").write_text("mine", encoding="utf-8")
    with pytest.raises(AlreadyExistsError, match=r"CARD\.md"):
        store.profiles.write_card("math", str(tmp_path))
    assert (tmp_path / "CARD.md").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "layers.png").exists()
    store.profiles.write_card("math", str(tmp_path), overwrite=True)
    assert (tmp_path / "CARD.md").read_text(encoding="utf-8").startswith("# math@1")


def test_set_of_in_domain_samples_alone_has_nothing_to_compare_with(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    with pytest.raises(InvalidInputError, match="every sample of maths@1 is an in-domain sample"):
        store.profiles.card("math", against="maths")
