"""Threads that run batches, one for each copy of a model, all fed from one queue."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nait_store.capture.batch_runner import BatchRunner, CapturedBatch
from nait_store.capture.rendering import PreparedSample, UnpreparedSample

if TYPE_CHECKING:
    from nait_store.capture.session import CaptureSession


@dataclass(frozen=True, eq=False)
class WorkResult:
    """What became of one planned batch.

    Attributes
    ----------
    captured
        Its samples: one batch, or several where the memory ran out.
    unfit
        Those that the memory did not hold even alone.
    """

    captured: list[CapturedBatch] = field(default_factory=list)
    unfit: list[UnpreparedSample] = field(default_factory=list)

    @property
    def n_samples(self) -> int:
        """Samples that are accounted for."""
        return len(self.unfit) + sum(len(batch.samples) for batch in self.captured)


@dataclass(frozen=True, eq=False)
class _Work:
    samples: list[PreparedSample]
    future: Future[WorkResult]
    result: WorkResult = field(default_factory=WorkResult)


class _Ledger:
    """The planned batches that one thread has begun, and what became of their samples, which leave in their order."""

    def __init__(self, runner: BatchRunner) -> None:
        self._runner = runner
        self._n_unfit = len(runner.unfit)
        self._begun: deque[_Work] = deque()

    def __len__(self) -> int:
        return len(self._begun)

    def begin(self, work: _Work) -> None:
        self._begun.append(work)

    def add(self, captured: CapturedBatch) -> None:
        self.look_at_unfit()  # those were launched before it
        self._begun[0].result.captured.append(captured)
        self._settle()

    def look_at_unfit(self) -> None:
        unfit = self._runner.unfit
        for item in unfit[self._n_unfit :]:
            self._begun[0].result.unfit.append(item)
            self._settle()
        self._n_unfit = len(unfit)

    def fail(self, error: BaseException) -> None:
        while self._begun:
            self._begun.popleft().future.set_exception(error)

    def _settle(self) -> None:
        work = self._begun[0]
        if work.result.n_samples == len(work.samples):
            self._begun.popleft()
            work.future.set_result(work.result)


class ReplicaWorkers:
    """A thread for each session; a context manager that ends them.

    Threads and not processes: a forward pass is spent outside of the interpreter's lock, and what it gives goes to the
    writer of this process without being copied.

    Parameters
    ----------
    sessions
        Copies of one model, each on a device of its own.
    """

    def __init__(self, sessions: Sequence[CaptureSession]) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._n_threads_before = 0
        self._threads = [
            threading.Thread(target=self._run, args=(session,), name=f"capture-{number}", daemon=True)
            for number, session in enumerate(sessions)
        ]
        n_on_cpu = sum(session.device == "cpu" for session in sessions)
        self._n_cpu_shares = max(1, n_on_cpu)

    def __enter__(self) -> ReplicaWorkers:
        import torch

        self._n_threads_before = torch.get_num_threads()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        try:
            while True:  # what no thread has begun is not wanted any more
                self._work.get_nowait()
        except queue.Empty:
            pass
        for _thread in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        torch.set_num_threads(self._n_threads_before)

    def submit(self, samples: list[PreparedSample]) -> Future[WorkResult]:
        """Have one planned batch run by whichever thread is free first."""
        work = _Work(samples, Future())
        self._work.put(work)
        return work.future

    def _run(self, session: CaptureSession) -> None:
        ledger = _Ledger(session.runner)
        try:
            self._settle_in(session.device)
            for captured in session.runner.run(self._windows(ledger)):
                ledger.add(captured)
        except BaseException as error:  # told to whoever waits for the batch, with its traceback
            ledger.fail(error)
            while (work := self._work.get()) is not None:
                work.future.set_exception(error)

    def _settle_in(self, device: str) -> None:
        """Make the thread's device the current one; copies on the CPU share its cores."""
        import torch

        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        elif device == "cpu":
            torch.set_num_threads(max(1, self._n_threads_before // self._n_cpu_shares))

    def _windows(self, ledger: _Ledger) -> Iterator[list[PreparedSample]]:
        """Yield the samples of one planned batch after the other, and an empty window while there is none to launch."""
        while True:
            ledger.look_at_unfit()
            try:
                # A thread with a batch on its device must not sleep here: somebody may wait for that batch.
                work = self._work.get_nowait() if len(ledger) else self._work.get()
            except queue.Empty:
                yield []
                continue
            if work is None:
                return
            ledger.begin(work)
            yield work.samples
