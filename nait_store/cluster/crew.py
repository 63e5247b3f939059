"""The workers of an ingest, seen from the driver: started, listened to, replaced when they die."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from nait_store.capture.usage import CaptureUsage
from nait_store.cluster.capture_worker import CaptureWorker
from nait_store.cluster.ray_cluster import Machine, ProcessDiedError, RayCluster
from nait_store.cluster.worker_messages import WorkerMeasurement, WorkerOrder, WorkerReport, WorkerStart
from nait_store.errors import IncompatibleError, InvalidInputError, StorageError
from nait_store.schemas.capture import CaptureEnvironment, CaptureIdentity, CaptureSettings

_REPORT_SECONDS = 1.0
_DISCARD_SECONDS = 10.0
_CALLS_AT_ONCE = 4  # a report that waits, and what is said to the worker meanwhile
_FRUITLESS_DEATHS = 4


@dataclass(frozen=True)
class CrewShape:
    """How many workers there are, and what each is lent.

    Attributes
    ----------
    n_workers
        Replicas of the model.
    gpus, cpus
        Of each.
    """

    n_workers: int
    gpus: int
    cpus: float

    @classmethod
    def of(
        cls, machines: Sequence[Machine], *, n_workers: int | None = None, gpus_per_worker: int | None = None
    ) -> CrewShape:
        """Fit workers to the machines.

        Parameters
        ----------
        machines
            Of the cluster.
        n_workers
            As many as there is room for, if omitted: one for every group of GPUs, or, without GPUs, for every machine.
        gpus_per_worker
            1 where there are GPUs, if omitted.

        Raises
        ------
        InvalidInputError
            No machine has so many GPUs; numbers below their least.
        """
        if (n_workers is not None and n_workers < 1) or (gpus_per_worker is not None and gpus_per_worker < 0):
            raise InvalidInputError(
                f"{n_workers} workers with {gpus_per_worker} GPUs each are no workers",
                next_step="give at least one worker, and none or more GPUs",
            )
        most = int(max((machine.n_gpus for machine in machines), default=0))
        gpus = min(1, most) if gpus_per_worker is None else gpus_per_worker
        if gpus > most:
            raise InvalidInputError(
                f"no machine of the cluster has {gpus} GPUs: the largest has {most}",
                next_step="lower --ray-gpus-per-worker, or start machines that have them",
            )
        lending = [machine for machine in machines if machine.n_gpus >= gpus and machine.n_cpus > 0]
        if not lending:
            raise InvalidInputError(
                "no machine of the cluster lends CPUs", next_step="start Ray on machines with --num-cpus above 0"
            )
        room = sum(int(machine.n_gpus) // gpus if gpus else 1 for machine in lending)
        wanted = n_workers or room
        # the same for all of them, so that each fits on any of the machines
        share = min(machine.n_cpus for machine in lending) / math.ceil(wanted / len(lending))
        return cls(wanted, gpus, float(int(share)) if share >= 1 else math.floor(share * 100) / 100)


@dataclass
class CrewWorker:
    """One worker, as far as the driver knows.

    Attributes
    ----------
    number
        Never given to another.
    actor
        Its handle.
    call
        What it was asked last and has not answered yet.
    measured
        What it measures; None while it loads the model.
    is_started
        Whether it was told what segments are like.
    n_waiting
        Chunks that it has not captured to their end.
    n_flushes
        Calls of ``flush`` that it has not answered.
    n_unsettled
        Samples that it has captured and that are neither acknowledged nor rejected.
    size_bytes, n_acknowledged_bytes
        Accepted by it in all, and in acknowledged segments.
    """

    number: int
    actor: Any
    call: Any
    measured: WorkerMeasurement | None = None
    is_started: bool = False
    n_waiting: int = 0
    n_flushes: int = 0
    n_unsettled: int = 0
    size_bytes: int = 0
    n_acknowledged_bytes: int = 0
    usage: CaptureUsage | None = None

    def start(self, start: WorkerStart) -> None:
        """Say what segments are like."""
        self.actor.start.remote(start)
        self.is_started = True

    def give(self, payload: Any, wanted: frozenset[bytes] | None, *, probe: bool) -> None:
        """Hand a chunk over."""
        self.actor.give.remote(payload, wanted, probe)
        self.n_waiting += 1

    def flush(self) -> None:
        """Have it close its segment."""
        self.actor.flush.remote()
        self.n_flushes += 1

    def stop(self) -> None:
        """Have it stop after the batch at hand, and close its segment."""
        self.actor.stop.remote()
        self.n_flushes += 1


Message = WorkerReport | WorkerMeasurement | ProcessDiedError


@dataclass
class Crew:
    """Starts workers and hears from them; a context manager that ends them. It is what the job takes for a capture.

    Attributes
    ----------
    cluster
        Where they run.
    order
        What they do.
    shape
        How many, and on what.
    workers
        Those that live.
    """

    cluster: RayCluster
    order: WorkerOrder
    shape: CrewShape
    workers: list[CrewWorker] = field(default_factory=list)
    _first: WorkerMeasurement | None = None
    _warnings: dict[str, None] = field(default_factory=dict)
    _n_started: int = 0
    _n_fruitless: int = 0
    _n_deaths: int = 0

    def __enter__(self) -> Self:
        for _ in range(self.shape.n_workers):
            self._hire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray = self.cluster.ray
        if isinstance(error, Exception) and self.workers:  # Ctrl-C does not wait
            ray.wait(
                [worker.actor.discard.remote() for worker in self.workers],
                num_returns=len(self.workers),
                timeout=_DISCARD_SECONDS,
            )
        for worker in self.workers:
            ray.kill(worker.actor)
        self.workers.clear()

    def await_ready(self, n_workers: int) -> None:
        """Wait until so many workers have loaded the model.

        Raises
        ------
        NaitStoreError
            What the first one to fail says.
        """
        while len(self.ready) < n_workers:
            for worker, message in self.poll():
                if isinstance(message, ProcessDiedError):
                    self.replace(worker, message)

    def poll(self) -> list[tuple[CrewWorker, Message]]:
        """Wait about a second for messages of the workers; a worker whose message is an error is dead.

        Raises
        ------
        NaitStoreError
            What a worker raised.
        IncompatibleError
            A worker measures something else than the others.
        """
        by_call = {worker.call: worker for worker in self.workers}
        calls = list(by_call)
        self.cluster.ray.wait(calls, num_returns=1, timeout=_REPORT_SECONDS)
        ready, _ = self.cluster.ray.wait(calls, num_returns=len(calls), timeout=0)
        messages: list[tuple[CrewWorker, Message]] = []
        for call in ready:
            worker = by_call[call]
            try:
                message = self.cluster.result(call)
            except ProcessDiedError as death:
                message = death
            else:
                self._hear(worker, message)
                worker.call = worker.actor.report.remote(_REPORT_SECONDS)
            messages.append((worker, message))
        return messages

    def replace(self, worker: CrewWorker, death: ProcessDiedError) -> None:
        """Start a worker in the place of a dead one.

        Raises
        ------
        StorageError
            Workers keep dying and nothing is written any more.
        """
        self.workers.remove(worker)
        self.cluster.ray.kill(worker.actor)  # if only the connection is gone, it must not go on
        self._n_fruitless += 1
        self._n_deaths += 1
        if self._n_fruitless > max(_FRUITLESS_DEATHS, 2 * self.shape.n_workers):
            raise StorageError(
                f"{self._n_fruitless} workers died one after the other, and none of them wrote anything: {death.what}",
                next_step="see the cluster's logs, most often memory ran out: try fewer --ray-workers, or a smaller "
                "--token-budget; what was acknowledged is kept",
            )
        self._hire()

    def note_fruit(self) -> None:
        """Something was acknowledged: deaths from here on count anew."""
        self._n_fruitless = 0

    @property
    def ready(self) -> list[CrewWorker]:
        """Workers that have loaded the model."""
        return [worker for worker in self.workers if worker.measured is not None]

    @property
    def identity(self) -> CaptureIdentity:
        """What they measure."""
        return self._measured.identity

    @property
    def settings(self) -> CaptureSettings:
        """What shifts the numbers a little."""
        return self._measured.settings

    @property
    def environment(self) -> CaptureEnvironment:
        """Where the first of them runs; segments record that of the worker that wrote them."""
        return self._measured.environment

    @property
    def layers(self) -> tuple[int, ...]:
        """Zero-based decoder layers that are captured, ascending."""
        return self._measured.layers

    @property
    def n_model_layers(self) -> int:
        """Decoder layers of the model."""
        return self._measured.n_model_layers

    @property
    def n_neurons(self) -> int:
        """J."""
        return self._measured.n_neurons

    @property
    def warnings(self) -> Sequence[str]:
        """What any of them warned of, and how many died."""
        died = {1: "a worker died", 0: ""}.get(self._n_deaths, f"{self._n_deaths} workers died")
        deaths = [f"{died}: what it had not written was captured again by another"] if died else []
        return [*self._warnings, *deaths]

    @property
    def usage(self) -> CaptureUsage:
        """The smallest token budget and the highest peak of any of them."""
        usages = [worker.usage for worker in self.workers if worker.usage is not None] or [self._measured.usage]
        devices = ", ".join(dict.fromkeys(usage.device for usage in usages))
        return CaptureUsage(
            device=f"{len(usages)} Ray worker{'s' if len(usages) > 1 else ''} ({devices})",
            layout=usages[0].layout,
            token_budget=min(usage.token_budget for usage in usages),
            peak_memory_bytes=max(usage.peak_memory_bytes for usage in usages),
        )

    @property
    def _measured(self) -> WorkerMeasurement:
        if self._first is None:
            raise RuntimeError("no worker has loaded the model yet: await_ready() comes first")
        return self._first

    def _hire(self) -> None:
        ray = self.cluster.ray
        make: Callable[[], Any] = (
            ray.remote(CaptureWorker)
            .options(
                num_cpus=self.shape.cpus,
                num_gpus=self.shape.gpus,
                max_concurrency=_CALLS_AT_ONCE,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote
        )
        actor = make()
        self.workers.append(CrewWorker(self._n_started, actor, actor.open.remote(self.order)))
        self._n_started += 1

    def _hear(self, worker: CrewWorker, message: WorkerReport | WorkerMeasurement) -> None:
        worker.usage = message.usage
        self._warnings |= dict.fromkeys(message.warnings)
        if isinstance(message, WorkerReport):
            worker.n_waiting -= message.n_chunks
            worker.n_flushes -= message.n_flushes
            worker.n_unsettled += message.n_captured
            worker.size_bytes = message.size_bytes
            return
        worker.measured = message
        self._first = self._first or message
        _require_same(message, self._first)


def _require_same(measured: WorkerMeasurement, first: WorkerMeasurement) -> None:
    for name in ("identity", "settings", "layers", "n_neurons"):
        if getattr(measured, name) != getattr(first, name):
            raise IncompatibleError(
                f"two workers measure different things: their {name} differs",
                next_step="let every machine of the cluster load the same files of the model",
            )
