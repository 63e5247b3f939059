"""Whatever was done to a store: gc changes nothing that can be read, and everything deleted goes in the end."""

from __future__ import annotations

import uuid
from datetime import timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import nait_store
from nait_store.activations.changes import Change, Contents
from nait_store.activations.compaction import compact
from nait_store.activations.history import restore
from nait_store.activations.set_version import SetVersion
from nait_store.schemas.activation_set import Operation
from nait_store.schemas.capture import Feature
from nait_store.storage.labels import LabelKind
from nait_store.storage.provenance import now
from nait_store.store.garbage.collection import ExpiryPolicy, gc
from nait_store.testing.stores import build_set
from tests.store.gc_stores import LATER, NO_GRACE, contents, files, problems

NUMBER = st.integers(min_value=0, max_value=30)
STEP = st.one_of(
    st.tuples(st.just("append"), NUMBER),
    st.tuples(st.sampled_from(["hide", "restore", "delete", "delete", "undelete", "tag", "untag"]), NUMBER),
    st.tuples(st.sampled_from(["compact", "gc", "gc-at-once", "keep-last"]), st.just(0)),
)


def hide(store: nait_store.Store, row: int) -> None:
    """Leave one more row of the latest version out, if it has one."""

    def change(current: SetVersion | None, _: int) -> Change | None:
        if current is None:
            return None
        ref = current.refs[row % len(current.refs)]
        return Change(
            Operation.DELETE_SAMPLES,
            Contents((Feature.MEAN,), (0,)),
            hidden={ref.ordinal: np.array([row % ref.n_rows])},
        )

    store.sets.versions.advance("pool", change)


def take_step(store: nait_store.Store, step: str, number: int, n_appended: int) -> None:
    log = store.sets.versions.log
    listing = log.listing("pool")
    back = [n for n in listing.deleted if n not in listing.collected]
    visible = listing.visible
    if step == "append":
        build_set(store.location, "pool", 3, first=3 * n_appended, seed=n_appended, n_layers=1, n_neurons=4)
    elif step == "hide" and visible:
        hide(store, number)
    elif step == "restore" and [*visible, *back]:
        restore(store.sets.versions, "pool", [*visible, *back][number % len([*visible, *back])], message="")
    elif step == "delete" and visible:
        log.delete("pool", visible[number % len(visible)])
    elif step == "undelete" and back:
        log.undelete("pool", back[number % len(back)])
    elif step == "tag" and visible:
        label = f"tag-{number}"
        if log.labels.find("pool", label) is None:
            log.labels.put(LabelKind.TAG, "pool", label, visible[number % len(visible)])
    elif step == "untag" and (labels := log.labels.of("pool")):
        log.labels.remove(LabelKind.TAG, "pool", labels[number % len(labels)].name)
    elif step == "compact" and visible:
        compact(store.sets.versions, "pool", target_bytes=1 << 20)


@settings(max_examples=25)
@given(st.lists(STEP, min_size=3, max_size=18))
def test_gc_changes_nothing_that_can_be_read(steps: list[tuple[str, int]]) -> None:
    store = nait_store.open(f"memory://{uuid.uuid4().hex}", create=True)
    build_set(store.location, "pool", 3, n_layers=1, n_neurons=4)
    n_appended = 1
    for step, number in steps:
        if step in ("gc", "gc-at-once"):
            before = contents(store)
            gc(store, clock=now() + LATER, grace=NO_GRACE if step == "gc-at-once" else timedelta(days=7))
            assert contents(store) == before
        elif step == "keep-last":
            latest = store.sets.versions.log.latest("pool")
            gc(store, policy=ExpiryPolicy(keep_last=1))
            assert store.sets.versions.log.latest("pool") == latest
        else:
            take_step(store, step, number, n_appended)
            n_appended += step == "append"
    assert problems(store) == []
    before = contents(store)
    gc(store, clock=now() + LATER)
    assert contents(store) == before
    assert problems(store) == []
    needed = {ref.segment_id for version in _versions(store) for ref in version.refs}
    assert {path.split("/")[3] for path in files(store) if "/segments/" in path} == needed


def _versions(store: nait_store.Store) -> list[SetVersion]:
    """Those that are visible, or deleted and tagged."""
    sets = store.sets.versions
    listing = sets.log.listing("pool")
    return [sets.version("pool", n) for n in listing.documents if n not in listing.collected]
