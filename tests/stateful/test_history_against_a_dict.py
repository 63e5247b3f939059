"""Everything that can happen to a set's history, in any order, against a plain dict of what each version holds."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import nait_store
from nait_store.activations import changes as changes_module
from nait_store.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError
from nait_store.schemas.activation_set import SetManifest
from nait_store.schemas.capture import Feature
from nait_store.schemas.samples import SampleRow
from nait_store.testing.stores import build_segment, fake_row, fake_set_record

N_NEURONS = 2
_IDS = [f"s{i}" for i in range(12)]
_SAMPLES = st.dictionaries(st.sampled_from(_IDS), st.sampled_from(["x", "x", "x", "y"]), min_size=1, max_size=5)
_SET = fake_set_record("pool", n_layers=1, n_neurons=N_NEURONS)
_TAGS = ["paper", "prod"]


def _vector(sample_id: str, text: str) -> np.ndarray:
    """Activations [L=1, J] that belong to a sample and no other."""
    seed = hashlib.blake2b(f"{sample_id}/{text}".encode(), digest_size=4).digest()
    return np.random.default_rng(int.from_bytes(seed)).standard_normal((1, N_NEURONS)).astype(np.float16)


def _row(sample_id: str, text: str, index: int) -> SampleRow:
    return fake_row(sample_id, index, {"text": text})


class History(RuleBasedStateMachine):
    """The real set ``pool`` beside a dict: version number → sample id → text."""

    @initialize(full_every=st.sampled_from([1, 2, 3, 100]))
    def begin(self, full_every: int) -> None:
        self._full_every = changes_module.FULL_MANIFEST_EVERY
        changes_module.FULL_MANIFEST_EVERY = full_every
        self.url = f"memory://{uuid.uuid4().hex}"
        self.store = nait_store.open(self.url, create=True)
        self.versions: dict[int, dict[str, str]] = {}
        self.deleted: set[int] = set()
        self.collected: set[int] = set()
        self.tags: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "url"):
            changes_module.FULL_MANIFEST_EVERY = self._full_every
            report = self.store.verify()
            assert report.ok, report.errors
            self._close()

    def _close(self) -> None:
        if "session" in vars(self.store):  # made when first asked for, and not cheap
            self.store.session.close()

    @property
    def visible(self) -> list[int]:
        return [n for n in self.versions if n not in self.deleted | self.collected]

    @property
    def current(self) -> dict[str, str]:
        return self.versions[self.visible[-1]] if self.visible else {}

    def expect(self, number: int, samples: dict[str, str]) -> None:
        """A new version was committed."""
        assert number == max(self.versions, default=0) + 1
        self.versions[number] = dict(samples)

    @rule(samples=_SAMPLES, n_segments=st.integers(1, 3))
    def append(self, samples: dict[str, str], n_segments: int) -> None:
        items = list(samples.items())
        self.store.sets.versions.create(_SET)  # gc takes the record of a set without versions
        segments = []
        for part in (items[i::n_segments] for i in range(n_segments)):
            if part:
                rows = [_row(sample_id, text, i) for i, (sample_id, text) in enumerate(part)]
                arrays = np.stack([_vector(*item) for item in part]).astype(np.float32)
                segments.append(build_segment(self.store.location, "pool", rows, {Feature.MEAN: arrays}))
        contradicts = any(self.current.get(i, text) != text for i, text in samples.items())
        expected = {**samples, **self.current}
        if contradicts:
            with pytest.raises(ConflictError):
                self.store.sets.versions.commit("pool", segments, ingest_ids=())
        elif expected.keys() == self.current.keys():
            version = self.store.sets.versions.commit("pool", segments, ingest_ids=())
            assert version.number == self.visible[-1]
        else:
            self.expect(self.store.sets.versions.commit("pool", segments, ingest_ids=()).number, expected)

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def delete_samples(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.current)), min_size=1, max_size=3, unique=True))
        expected = {i: text for i, text in self.current.items() if i not in ids}
        if not expected:
            with pytest.raises(InvalidInputError):
                self.store.sets.delete_samples("pool", ids=ids)
            return
        done = self.store.sets.delete_samples("pool", ids=ids)
        self.expect(int(done.set_ref.partition("@")[2]), expected)

    @precondition(lambda self: self.visible)
    @rule(absent=st.sampled_from(_IDS))
    def delete_a_sample_that_is_not_there(self, absent: str) -> None:
        if absent not in self.current:
            with pytest.raises(NotFoundError):
                self.store.sets.delete_samples("pool", ids=[absent])

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.versions)))
        if number in self.collected:
            with pytest.raises(NotFoundError):
                self.store.sets.restore(f"pool@{number}")
            return
        done = self.store.sets.restore(f"pool@{number}")
        if done.created:
            self.expect(int(done.set_ref.partition("@")[2]), self.versions[number])
        assert self.versions[number] == self.current

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def delete_version(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.versions)))
        if number not in self.visible:
            with pytest.raises(NotFoundError):
                self.store.sets.delete(f"pool@{number}")
        elif number in self.tags.values():
            with pytest.raises(InvalidInputError):
                self.store.sets.delete(f"pool@{number}", force=True)
        else:
            self.store.sets.delete(f"pool@{number}")
            self.deleted.add(number)

    @precondition(lambda self: self.deleted)
    @rule(data=st.data())
    def undelete(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.deleted)))
        if number in self.collected:
            with pytest.raises(NotFoundError):
                self.store.sets.undelete(f"pool@{number}")
        else:
            self.store.sets.undelete(f"pool@{number}")
            self.deleted.remove(number)

    @precondition(lambda self: self.visible)
    @rule(data=st.data(), tag=st.sampled_from(_TAGS))
    def tag(self, data: st.DataObject, tag: str) -> None:
        number = data.draw(st.sampled_from(self.visible))
        if self.tags.get(tag, number) != number:
            with pytest.raises(AlreadyExistsError):
                self.store.sets.tag(f"pool@{number}", tag)
        else:
            self.store.sets.tag(f"pool@{number}", tag)
            self.tags[tag] = number

    @rule(tag=st.sampled_from(_TAGS))
    def untag(self, tag: str) -> None:
        if tag in self.tags:
            self.store.sets.untag("pool", tag)
            del self.tags[tag]

    @precondition(lambda self: self.visible)
    @rule()
    def compact(self) -> None:
        before = self.visible[-1]
        done = self.store.sets.compact("pool")
        number = self.store.sets.open("pool").number
        if number != before:
            self.expect(number, self.versions[before])
        assert done is not None

    @rule()
    def collect_garbage(self) -> None:
        self.store.gc(grace=timedelta(0))
        self.collected |= self.deleted

    @precondition(lambda self: self.visible)
    @rule(ids=st.lists(st.sampled_from(_IDS), min_size=1, max_size=2, unique=True))
    def purge(self, ids: list[str]) -> None:
        kept = [samples for number, samples in self.versions.items() if number not in self.collected]
        held = {sample_id for samples in kept for sample_id in samples} & set(ids)
        before = dict(self.current)
        report = self.store.purge("pool", ids=ids)
        assert held.isdisjoint(report.not_found)
        for samples in self.versions.values():
            for sample_id in ids:
                samples.pop(sample_id, None)
        number = self.store.sets.open("pool").number
        if number != self.visible[-1]:
            self.expect(number, {i: text for i, text in before.items() if i not in ids})

    @rule()
    def reopen(self) -> None:
        self._close()
        self.store = nait_store.open(self.url)

    @invariant()
    def every_version_holds_what_the_dict_says(self) -> None:
        if not hasattr(self, "url"):
            return
        sets = self.store.sets.versions
        assert sets.numbers("pool") == self.visible
        for number in self.visible[-3:]:
            version = sets.open(f"pool@{number}")
            rows = version.samples(["sample_id", "record"])
            ids = rows.column("sample_id").to_pylist()
            assert version.n_samples == len(ids) == len(set(ids))
            assert set(ids) == self.versions[number].keys()
        for tag, number in self.tags.items():
            assert sets.open(f"pool@{tag}").number == number

    @invariant()
    def the_latest_version_has_the_activations_of_its_samples(self) -> None:
        if not hasattr(self, "url") or not self.visible:
            return
        version = self.store.sets.open("pool")
        for segment in version.segments:
            visible = version.visible_rows(segment)
            ids = segment.samples(["sample_id"]).column(0).to_pylist()
            stored = segment.read(Feature.MEAN)
            for row, sample_id in enumerate(ids):
                if visible is None or visible[row]:
                    np.testing.assert_array_equal(stored[row], _vector(sample_id, self.current[sample_id]))

    @precondition(lambda self: self.current)  # a version without samples has no user's columns either
    @rule()
    def sql_sees_the_latest_version(self) -> None:
        found = self.store.sql("SELECT sample_id, text FROM samples('pool')").fetchall()
        assert dict(found) == self.current

    @precondition(lambda self: self.versions)
    @rule()
    def numbers_and_ordinals_are_never_used_again(self) -> None:
        manifests: list[SetManifest] = []
        for number in self.versions:
            with contextlib.suppress(NotFoundError):  # collected
                manifests.append(self.store.sets.versions.log.read("pool", number))
        upcoming = [manifest.next_ordinal for manifest in manifests]
        assert upcoming == sorted(upcoming)


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=500,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # Shrinking would take longer than all the examples; the failing steps are printed, a dozen at most.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
