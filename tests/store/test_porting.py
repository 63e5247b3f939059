"""Profiles carried to other models: the sister is the profile that a build on the other model itself gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nait_store
from nait_store.capture.session import CaptureSession
from nait_store.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from nait_store.registry.profiles import Profile
from nait_store.schemas.capture import Feature
from nait_store.testing.tiny_models import save_tiny_model

N_MATHS, N_POOL = 24, 12
WORDS = ("add", "sum", "the", "number", "of", "what", "is", "write", "function", "return")


def write(path: Path, records: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def records(n: int, kind: str) -> list[dict[str, Any]]:
    """Of different lengths, so that layouts of batches have something to do."""
    rng = np.random.default_rng(len(kind))
    return [
        {"question": f"{kind} {i} " + " ".join(rng.choice(WORDS, 3 + i % 9)), "answer": " ".join(rng.choice(WORDS, 4))}
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of three small models of different families, shapes and depths."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    save_tiny_model(folder / "tiny-llama", "llama")
    save_tiny_model(folder / "Tiny Qwen2", "qwen2", seed=1, num_hidden_layers=4, intermediate_size=40)
    save_tiny_model(folder / "tiny-gpt2", "gpt2", seed=2, num_hidden_layers=2, n_inner=56)
    return folder


@pytest.fixture(scope="module")
def built(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with maths and a pool of the Llama's, and profiles of every kind."""
    folder = tmp_path_factory.mktemp("ported")
    store = nait_store.open(str(folder / "store"), create=True)
    llama = str(models / "tiny-llama")
    maths = write(folder / "maths.jsonl", records(N_MATHS, "maths"))
    features = ["mean", "drift"]
    store.ingest(maths, set="maths", model=llama, features=features, device="cpu", max_length=64)
    store.ingest(write(folder / "pool.jsonl", records(N_POOL, "pool")), set="pool", model=llama, device="cpu")
    store.profiles.build("math", source="maths", card="school arithmetic")
    store.profiles.build("drifting", source="maths", recipe="nait-paper", limit=16, seed=3)
    store.profiles.build("short", source="maths", where="n_tokens < 24")
    store.profiles.build("contrast", source="maths", against="pool")
    store.profiles.build("partial", source="maths", layers=[0, 2])
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of it."""
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(built, tmp_path / "work"))


@pytest.fixture
def store(folder: Path) -> nait_store.Store:
    return nait_store.open(str(folder / "store"))


@pytest.fixture(scope="module")
def qwen(models: Path) -> dict[str, Any]:
    """The Qwen, loaded once: ``model`` and ``capture`` of an ingest or a port."""
    return opened(models / "Tiny Qwen2")


@pytest.fixture(scope="module")
def gpt2(models: Path) -> dict[str, Any]:
    """The GPT-2, likewise."""
    return opened(models / "tiny-gpt2")


def opened(model: Path) -> dict[str, Any]:
    both = [Feature.MEAN, Feature.DRIFT]
    capture = CaptureSession.open(str(model), features=both, device="cpu", max_length_tokens=64)
    return {"model": str(model), "capture": capture}


def directly_built(store: nait_store.Store, folder: Path, model: dict[str, Any], **options: Any) -> Profile:
    """The profile that somebody builds who has the files and the other model."""
    store.ingest(str(folder / "maths.jsonl"), set="own", features=["mean", "drift"], **model)
    return store.profiles.build("own", source="own", **options)[0]


def assert_same(one: Profile, other: Profile) -> None:
    """Equal within the rounding of float16 storage, which is all that a second capture may change."""
    assert one.record.layers == other.record.layers
    assert one.record.recipe == other.record.recipe
    np.testing.assert_allclose(one.directions(), other.directions(), atol=2e-3)
    cosines = np.sum(one.directions().astype(np.float64) * other.directions(), axis=1)
    assert np.all(cosines > 0.99999)


def test_llama_to_qwen_to_gpt2_gives_what_is_built_there(
    store: nait_store.Store, folder: Path, qwen: dict[str, Any], gpt2: dict[str, Any]
) -> None:
    """Models are loaded by the port itself, captures follow the profile's settings."""
    first = store.profiles.port("math", model=qwen["model"], device="cpu")
    assert (first.profile, first.created, first.ported_from) == ("math-tiny-qwen2@1", True, "math@1")
    assert (first.set_ref, first.n_samples, first.n_captured, first.n_missing) == (
        "maths-tiny-qwen2@1", N_MATHS, N_MATHS, 0,
    )  # fmt: skip
    assert first.differences == ()
    second = store.profiles.port(first.profile, model=gpt2["model"], device="cpu")
    assert (second.profile, second.set_ref) == ("math-tiny-gpt2@1", "maths-tiny-gpt2@1")
    assert store.profiles.open(second.profile).record.source.n_samples == N_MATHS
    assert_same(store.profiles.open(second.profile), directly_built(store, folder, gpt2))
    shutil.rmtree(folder / "store" / "activations" / "own")
    store.refresh()
    assert_same(store.profiles.open(first.profile), directly_built(store, folder, qwen))


def test_weights_go_with_the_samples(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    """Those of the profile, even where they come from what its model alone says of the samples."""
    origin, _ = store.profiles.build("heavy", source="maths", weights="n_tokens * n_tokens")
    sister = store.profiles.open(store.profiles.port("heavy", **qwen).profile)
    assert sister.record.source.weights == origin.record.source.weights
    squares = store.sql("SELECT sample_id, n_tokens * n_tokens AS weight FROM samples('maths')").to_dicts()
    assert_same(sister, directly_built(store, folder, qwen, weights_file=write(folder / "w.jsonl", squares)))
    assert sister.reference in [one.reference for one in store.profiles.family("heavy")]


def test_the_sister_says_where_it_comes_from(
    store: nait_store.Store, qwen: dict[str, Any], gpt2: dict[str, Any]
) -> None:
    store.profiles.port("math", **qwen)
    report = store.profiles.port("math-tiny-qwen2", **gpt2)
    record = store.profiles.open(report.profile).record
    assert record.ported_from is not None
    assert (record.ported_from.reference, record.ported_from.family) == ("math-tiny-qwen2@1", "math")
    assert record.ported_from.recipe_sha256 == store.profiles.open("math-tiny-qwen2").record.recipe_sha256
    assert record.card == "school arithmetic"
    assert store.profiles.open(report.profile).manifest.message == "ported from math-tiny-qwen2@1"
    assert store.profiles.open("math").record.ported_from is None
    assert store.verify().ok


def test_samples_keep_their_ids_and_sources(store: nait_store.Store, qwen: dict[str, Any]) -> None:
    report = store.profiles.port("math", **qwen)
    columns = "sample_id, content_hash, record, source_uri, source_index, question"
    ported, original = (
        store.sql(f"SELECT {columns} FROM samples('{ref}') ORDER BY sample_id").fetchall()
        for ref in (report.set_ref, "maths")
    )
    assert ported == original


def test_a_second_port_computes_nothing(store: nait_store.Store, qwen: dict[str, Any]) -> None:
    store.profiles.port("math", **qwen)
    again = store.profiles.port("math", **qwen)
    assert (again.profile, again.created, again.n_captured) == ("math-tiny-qwen2@1", False, 0)


def test_a_set_that_holds_the_samples_is_used(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    """One with other samples beside them, measured as the profile's were."""
    more = records(N_MATHS, "maths") + records(9, "other things")
    write(folder / "more.jsonl", more)
    store.ingest(str(folder / "more.jsonl"), set="everything", **qwen)
    report = store.profiles.port("math", **qwen)
    assert (report.set_ref, report.n_captured, report.n_samples) == ("everything@1", 0, N_MATHS)
    source = store.profiles.open(report.profile).record.source
    assert source.where == "sample_id IN (SELECT sample_id FROM samples('maths@1'))"
    assert_same(store.profiles.open(report.profile), directly_built(store, folder, qwen))
    assert store.profiles.diff("math", report.profile).n_kept == N_MATHS


def test_a_set_of_another_maximum_length_is_not_used_unasked(
    store: nait_store.Store, folder: Path, qwen: dict[str, Any]
) -> None:
    store.ingest(str(folder / "maths.jsonl"), set="longer", model=qwen["model"], device="cpu", max_length=90)
    assert store.profiles.port("math", **qwen).set_ref == "maths-tiny-qwen2@1"
    asked = store.profiles.port("math", model=qwen["model"], device="cpu", max_length=90, set="longer", name="asked")
    assert (asked.set_ref, asked.n_captured) == ("longer@1", 0)
    assert "max length tokens 90, where math has 64" in asked.differences


def test_a_drawn_choice_stays_that_choice(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    report = store.profiles.port("drifting", **qwen)
    assert report.n_captured == 16
    direct = directly_built(store, folder, qwen, recipe="nait-paper", limit=16, seed=3)
    assert_same(store.profiles.open(report.profile), direct)
    store.profiles.port("math", **qwen, set="all-of-them")
    again = store.profiles.port("drifting", **qwen, set="own", name="from-all")
    source = store.profiles.open(again.profile).record.source
    assert (source.where, source.limit, source.seed) == (None, 16, 3)


def test_a_condition_on_tokens_chooses_the_samples_and_not_the_tokens_of_the_other_model(
    store: nait_store.Store, folder: Path, gpt2: dict[str, Any]
) -> None:
    wanted = store.sql("SELECT sample_id FROM samples('maths') WHERE n_tokens < 24 ORDER BY 1").fetchall()
    assert 8 < len(wanted) < N_MATHS
    report = store.profiles.port("short", **gpt2)
    assert store.sql(f"SELECT sample_id FROM samples('{report.set_ref}') ORDER BY 1").fetchall() == wanted


def test_all_layers_become_all_layers(store: nait_store.Store, qwen: dict[str, Any], gpt2: dict[str, Any]) -> None:
    assert store.profiles.port("math", **qwen).layers == (0, 1, 2, 3)
    assert store.profiles.port("math", **gpt2).layers == (0, 1)


def test_some_layers_are_asked_for(store: nait_store.Store, qwen: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"for some layers of its model only \(0, 2\)") as caught:
        store.profiles.port("partial", **qwen)
    assert "--layers all" in str(caught.value)
    assert store.profiles.port("partial", model=qwen["model"], device="cpu", layers=[1, 3]).layers == (1, 3)
    assert store.profiles.port("partial", **qwen, layers="all", set="a", name="b").layers == (
        0,
        1,
        2,
        3,
    )


def test_a_contrast_needs_the_background_there(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="is a contrast with 12 samples of pool@1") as caught:
        store.profiles.port("contrast", **qwen)
    assert "--capture-background" in str(caught.value)
    report = store.profiles.port("contrast", **qwen, capture_background=True)
    assert report.background_ref == "pool-tiny-qwen2@1"
    store.ingest(str(folder / "pool.jsonl"), set="pool-own", **qwen)
    direct = directly_built(store, folder, qwen, against="pool-own")
    ported = store.profiles.open(report.profile)
    assert_same(ported, direct)
    mine, theirs = ported.offset(), direct.offset()
    assert mine is not None
    assert theirs is not None
    np.testing.assert_allclose(mine, theirs, atol=2e-3)


def test_a_background_that_is_there_is_found(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    store.ingest(str(folder / "pool.jsonl"), set="pool-own", **qwen)
    report = store.profiles.port("contrast", **qwen)
    assert (report.background_ref, report.differences) == ("pool-own@1", ())


def test_another_background_is_said_to_be_another(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    store.ingest(str(folder / "pool.jsonl"), set="some", **qwen, limit=8)
    report = store.profiles.port("contrast", **qwen, against="some")
    assert report.differences == ("against some@1, whose samples are not exactly 12 samples of pool@1",)


def test_what_was_renamed_at_ingest_is_renamed_again(
    store: nait_store.Store, folder: Path, models: Path, qwen: dict[str, Any]
) -> None:
    """No one has to remember the --map: the stored content hash tells it."""
    odd = [{"frage": one["question"], "antwort": one["answer"], "nr": i} for i, one in enumerate(records(20, "odd"))]
    options: dict[str, Any] = {"map": {"instruction": "frage", "output": "antwort"}, "id_field": "nr"}
    source = write(folder / "odd.jsonl", odd)
    store.ingest(source, set="odd", model=str(models / "tiny-llama"), device="cpu", **options)
    store.profiles.build("odd", source="odd")
    report = store.profiles.port("odd", **qwen)
    store.ingest(source, set="odd-own", **qwen, **options)
    assert store.sets.diff(report.set_ref, "odd-own").same_samples
    assert_same(store.profiles.open(report.profile), store.profiles.build("own", source="odd-own")[0])


def lose_the_set(folder: Path) -> None:
    """As in a store that a profile was pulled into."""
    shutil.rmtree(folder / "store" / "activations" / "maths")


def test_without_the_set_a_file_is_asked_for(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    lose_the_set(folder)
    with pytest.raises(
        InvalidInputError, match="made from 24 samples of maths@1, and this store does not hold them"
    ) as e:
        store.profiles.port("math", **qwen)
    assert "--reference-file FILE" in str(e.value)


def test_samples_are_found_in_a_file(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    lose_the_set(folder)
    maths = str(folder / "maths.jsonl")
    report = store.profiles.port("math", **qwen, reference_files=[maths])
    assert (report.n_samples, report.n_captured) == (N_MATHS, N_MATHS)
    assert_same(store.profiles.open(report.profile), directly_built(store, folder, qwen))


def test_a_draw_is_found_in_a_file(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    lose_the_set(folder)
    report = store.profiles.port("drifting", **qwen, reference_files=[str(folder / "maths.jsonl")])
    assert report.n_captured == 16


@pytest.mark.parametrize("n", [N_MATHS - 1, N_MATHS + 1])
def test_a_file_with_other_samples_is_refused(
    store: nait_store.Store, folder: Path, qwen: dict[str, Any], n: int
) -> None:
    lose_the_set(folder)
    write(folder / "else.jsonl", [*records(N_MATHS, "maths"), *records(1, "surplus")][:n])
    with pytest.raises(InvalidInputError, match="has other samples, or not all of these"):
        store.profiles.port("math", **qwen, reference_files=[str(folder / "else.jsonl")])
    assert "maths-tiny-qwen2" not in store.sets.names()


def test_purged_samples_are_missed_unless_allowed(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    (gone,) = store.sql("SELECT sample_id FROM samples('maths') ORDER BY 1 LIMIT 1").fetchall()[0]
    store.purge("maths", ids=[gone])
    with pytest.raises(InvalidInputError, match=r"23 of the 24 samples .* are in set:maths@1") as caught:
        store.profiles.port("math", **qwen)
    assert "--allow-missing" in str(caught.value)
    report = store.profiles.port("math", **qwen, allow_missing=True)
    assert (report.n_samples, report.n_missing) == (N_MATHS - 1, 1)
    (ids,) = zip(*store.sql(f"SELECT sample_id FROM samples('{report.set_ref}')").fetchall(), strict=True)
    assert gone not in ids


def test_purged_samples_are_completed_from_a_file(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    (gone,) = store.sql("SELECT sample_id FROM samples('maths') ORDER BY 1 LIMIT 1").fetchall()[0]
    store.purge("maths", ids=[gone])
    report = store.profiles.port("math", **qwen, reference_files=[str(folder / "maths.jsonl")])
    assert (report.n_samples, report.n_missing) == (N_MATHS, 0)


def test_another_set_of_that_name_is_not_mistaken_for_it(
    store: nait_store.Store, folder: Path, models: Path, qwen: dict[str, Any]
) -> None:
    lose_the_set(folder)
    unlike = write(folder / "unlike.jsonl", records(10, "unlike"))
    store.refresh()
    store.ingest(unlike, set="maths", model=str(models / "tiny-llama"), device="cpu", max_length=64)
    with pytest.raises(InvalidInputError, match="does not hold them"):
        store.profiles.port("math", **qwen, allow_missing=True)


def pulled(store: nait_store.Store, folder: Path, policy: str, reference: str = "math") -> nait_store.Store:
    """Another team's store, which has nothing but the profile."""
    store.remotes.push(reference, str(folder / "registry"), reference_samples=policy)
    other = nait_store.open(str(folder / "theirs"), create=True)
    other.remotes.pull(reference, str(folder / "registry"))
    return other


def test_samples_that_came_with_a_pulled_profile_are_used(
    store: nait_store.Store, folder: Path, qwen: dict[str, Any]
) -> None:
    other = pulled(store, folder, "full")
    report = other.profiles.port("math", **qwen)
    assert (report.n_samples, report.n_captured) == (N_MATHS, N_MATHS)
    assert_same(other.profiles.open(report.profile), directly_built(store, folder, qwen))
    assert other.verify().ok


def test_hashes_that_came_with_a_pulled_profile_find_its_samples_among_others(
    store: nait_store.Store, folder: Path, qwen: dict[str, Any]
) -> None:
    other = pulled(store, folder, "hashes")
    with pytest.raises(InvalidInputError, match="hashes of them came with the profile"):
        other.profiles.port("math", **qwen)
    mixed = write(folder / "mixed.jsonl", [*records(5, "else"), *records(N_MATHS, "maths")])
    report = other.profiles.port("math", **qwen, reference_files=[mixed])
    assert (report.n_samples, report.n_missing) == (N_MATHS, 0)
    assert_same(other.profiles.open(report.profile), directly_built(store, folder, qwen))


def test_hashes_tell_which_samples_a_file_lacks(store: nait_store.Store, folder: Path, qwen: dict[str, Any]) -> None:
    other = pulled(store, folder, "hashes")
    most = write(folder / "most.jsonl", [*records(3, "else"), *records(N_MATHS, "maths")[2:]])
    with pytest.raises(InvalidInputError, match=r"22 of the 24 samples that math@1 was made from are in .*most\.jsonl"):
        other.profiles.port("math", **qwen, reference_files=[most])
    report = other.profiles.port("math", **qwen, reference_files=[most], allow_missing=True)
    assert (report.n_samples, report.n_missing) == (N_MATHS - 2, 2)


def test_the_right_records_under_other_ids_are_told(
    store: nait_store.Store, folder: Path, qwen: dict[str, Any]
) -> None:
    other = pulled(store, folder, "hashes")
    with pytest.raises(InvalidInputError, match="under other sample ids") as caught:
        other.profiles.port("math", **qwen, reference_files=[str(folder / "maths.jsonl")], id_field="question")
    assert "--id-field" in str(caught.value)


def test_the_own_model_is_refused(store: nait_store.Store, models: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is nothing to port"):
        store.profiles.port("math", model=str(models / "tiny-llama"), device="cpu")


def test_names_are_not_shared_by_two_models_unasked(
    store: nait_store.Store, folder: Path, models: Path, qwen: dict[str, Any]
) -> None:
    store.profiles.port("math", **qwen)
    namesake = str(shutil.copytree(models / "tiny-gpt2", folder / "tiny-qwen2"))
    with pytest.raises(AlreadyExistsError, match="math-tiny-qwen2@1 is of another model"):
        store.profiles.port("math", model=namesake, device="cpu")
    with pytest.raises(AlreadyExistsError, match="set 'maths-tiny-qwen2' measures something else"):
        store.profiles.port("math", model=namesake, device="cpu", name="math-other")
    report = store.profiles.port("math", model=namesake, device="cpu", name="math-tiny-qwen2", set="maths-other")
    assert report.profile == "math-tiny-qwen2@2"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"reference": "maths"}, NotFoundError, "math"),
        ({"reference": "math@7"}, NotFoundError, "math@1"),
        ({"model": "./nowhere"}, NotFoundError, "nowhere"),
        ({"name": "No Name"}, InvalidInputError, "not a valid profile name"),
        ({"set": "No Name"}, InvalidInputError, "not a valid set name"),
        ({"layers": [9]}, NotFoundError, "no layer 9"),
        ({"against": "pool"}, InvalidInputError, "has no background"),
        ({"map": {"question": "x"}}, InvalidInputError, "not a canonical field"),
        ({"template": "chat"}, InvalidInputError, "chat template"),
        ({"max_length": 1000}, InvalidInputError, "96"),
        ({"dtype": "float8"}, InvalidInputError, "dtype"),
    ],
)
def test_slips_leave_the_store_alone(
    store: nait_store.Store, qwen: dict[str, Any], options: dict[str, Any], error: type[Exception], says: str
) -> None:
    before = (store.sets.names(), store.profiles.names())
    given = {"model": qwen["model"], "device": "cpu", **options}
    with pytest.raises(error, match=says):
        store.profiles.port(given.pop("reference", "math"), **given)
    assert (store.sets.names(), store.profiles.names()) == before


def test_profiles_without_samples_are_not_ported(store: nait_store.Store, models: Path, tmp_path: Path) -> None:
    store.profiles.combine("mixed", {"math": 1.0}, without=["contrast"])
    store.profiles.import_("theirs", store.profiles.export("math", str(tmp_path / "math.npz")).url)
    for name, advice in (("mixed", "port its parts, and combine their sisters"), ("theirs", "that the file is of")):
        with pytest.raises(InvalidInputError, match="no samples that another model could be shown") as caught:
            store.profiles.port(name, model=str(models / "tiny-gpt2"))
        assert advice in str(caught.value.next_step)
