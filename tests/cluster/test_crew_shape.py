"""How many workers there are, and what each is lent; and what the ledger keeps of them."""

from __future__ import annotations

import pytest

from nait_store.cluster.crew import CrewShape
from nait_store.cluster.ledger import Chunk, Ledger
from nait_store.cluster.ray_cluster import Machine
from nait_store.errors import InvalidInputError

GPU_MACHINES = [Machine(96, 8), Machine(96, 8)]


def test_one_worker_for_every_gpu() -> None:
    assert CrewShape.of(GPU_MACHINES) == CrewShape(16, 1, 12)


def test_one_worker_for_every_group_of_gpus() -> None:
    assert CrewShape.of(GPU_MACHINES, gpus_per_worker=4) == CrewShape(4, 4, 48)


def test_machines_with_too_few_gpus_lend_nothing() -> None:
    assert CrewShape.of([*GPU_MACHINES, Machine(4, 0)], gpus_per_worker=8) == CrewShape(2, 8, 96)


def test_one_worker_for_every_machine_without_gpus() -> None:
    assert CrewShape.of([Machine(16, 0), Machine(8, 0)]) == CrewShape(2, 0, 8)


def test_more_workers_than_cpus_share_them() -> None:
    assert CrewShape.of([Machine(2, 0)], n_workers=3) == CrewShape(3, 0, 0.66)


def test_gpus_can_be_left_alone() -> None:
    assert CrewShape.of(GPU_MACHINES, gpus_per_worker=0, n_workers=4).gpus == 0


@pytest.mark.parametrize(
    ("machines", "wanted"),
    [(GPU_MACHINES, {"gpus_per_worker": 9}), (GPU_MACHINES, {"n_workers": 0}), ([Machine(0, 0)], {}), ([], {})],
)
def test_what_no_machine_can_give_is_refused(machines: list[Machine], wanted: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError):
        CrewShape.of(machines, **wanted)


def test_a_sample_is_settled_once() -> None:
    ledger = Ledger()
    ledger.give(0, Chunk("payload", {b"a", b"b"}))
    assert (ledger.settle(0, [b"a"]), ledger.settle(0, [b"a", b"c"])) == (1, 0)
    assert (len(ledger), ledger.n_pending(0)) == (1, 1)


def test_a_sample_that_another_worker_has_now_is_not_settled_by_the_first() -> None:
    ledger = Ledger()
    ledger.give(0, Chunk("payload", {b"a"}))
    (chunk,) = ledger.lose(0)
    ledger.give(1, chunk)
    assert ledger.settle(0, [b"a"]) == 0
    assert ledger.settle(1, [b"a"]) == 1


def test_what_a_dead_worker_had_not_settled_comes_back_in_order() -> None:
    ledger = Ledger()
    chunks = [Chunk("first", {b"a", b"b"}), Chunk("second", {b"c"}), Chunk("third", {b"d"})]
    for chunk in chunks:
        ledger.give(7, chunk)
    ledger.settle(7, [b"b", b"d"])
    lost = ledger.lose(7)
    assert [(chunk.payload, chunk.pending, chunk.is_whole, chunk.n_deaths) for chunk in lost] == [
        ("first", {b"a"}, False, 1),
        ("second", {b"c"}, True, 1),
    ]
    assert ledger.lose(7) == []
    assert len(ledger) == 0
