"""Copies of one model on several devices of a machine, which share the batches of an ingest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from nait_store.capture.batch_runner import CapturedBatch
from nait_store.capture.batches import windows
from nait_store.capture.devices import choose_devices
from nait_store.capture.edge_tokens import EdgeTokens
from nait_store.capture.memory import device_peak_bytes
from nait_store.capture.rendering import PreparedSample, UnpreparedSample
from nait_store.capture.replica_workers import ReplicaWorkers, WorkResult
from nait_store.capture.session import CaptureOptions, CaptureSession
from nait_store.capture.usage import CaptureUsage, DeviceUsage
from nait_store.errors import InvalidInputError
from nait_store.schemas.capture import Feature


class ReplicatedSession:
    """A capture session for each device, used as one. Made by :meth:`open`; a context manager.

    Batches are planned once, for the smallest token budget of the copies; whichever device is free takes the next one.
    They are given out in the order in which they were planned. What is measured, and so the capture identity, is that
    of a session on one device.

    Attributes
    ----------
    identity, settings, layers, n_model_layers, n_neurons, renderer
        As of a :class:`~nait_store.capture.session.CaptureSession`.
    environment
        Names every device.
    unfit
        Samples that do not fit into memory even alone, with the reason; grows while it runs.
    """

    def __init__(self, sessions: Sequence[CaptureSession]) -> None:
        first = sessions[0]
        dtypes = [(session.device, session.settings.compute_dtype) for session in sessions]
        if len({dtype for _, dtype in dtypes}) > 1:
            raise InvalidInputError(
                "the devices would compute in different dtypes: "
                + ", ".join(f"{dtype} on {device}" for device, dtype in dtypes),
                next_step="name one with --compute-dtype, or devices of one kind",
            )
        self.identity = first.identity
        self.settings = first.settings
        self.layers = first.layers
        self.n_model_layers = first.n_model_layers
        self.n_neurons = first.n_neurons
        self.renderer = first.renderer
        self.environment = first.environment.model_copy(
            update={
                "device": ", ".join(session.device for session in sessions),
                "batch_layout": ", ".join(dict.fromkeys(session.environment.batch_layout for session in sessions)),
            }
        )
        self.unfit: list[UnpreparedSample] = []
        self._sessions = tuple(sessions)
        self._edge_warnings: list[str] = []

    @classmethod
    def open(
        cls, model_source: str, *, features: Sequence[Feature], devices: str | Sequence[str], **options: Any
    ) -> ReplicatedSession:
        """Load a model once for each device.

        Parameters
        ----------
        model_source
            Folder or hub id.
        features
            What to collect.
        devices
            See :func:`~nait_store.capture.devices.choose_devices`.
        **options
            The other fields of :class:`~nait_store.capture.session.CaptureOptions`, but for ``device`` and
            ``device_map``.

        Raises
        ------
        NotFoundError, InvalidInputError, IncompatibleError, MissingExtraError
            The devices, or whatever :meth:`~nait_store.capture.session.CaptureSession.open` refuses.
        """
        for option, given in (
            ("--device", options.get("device", "auto") not in ("auto", None)),
            ("--device-map", options.get("device_map") is not None),
        ):
            if given:
                raise InvalidInputError(
                    f"--devices puts a whole copy of the model on each device, which contradicts {option}",
                    next_step=f"leave out --devices or {option}",
                )
        chosen = choose_devices(devices)
        if options.get("layers") is not None:
            options["layers"] = tuple(options["layers"])
        wanted = CaptureOptions(model_source, **{**options, "device": chosen[0], "device_map": None})
        sessions: list[CaptureSession] = []
        try:
            for device in chosen:
                sessions.append(CaptureSession.of(replace(wanted, device=device), features=features))
                # A budget is found by trial once; what one device learns later is its own.
                wanted = replace(wanted, token_budget=sessions[0].usage.token_budget)
            return cls(sessions)
        except BaseException:
            for session in sessions:
                session.close()
            raise

    def __enter__(self) -> ReplicatedSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the hooks from the models."""
        for session in self._sessions:
            session.close()

    @property
    def warnings(self) -> Sequence[str]:
        """What the user should know; grows while it runs."""
        told = [warning for session in self._sessions for warning in session.warnings]
        return list(dict.fromkeys([*told, *self._edge_warnings]))

    @property
    def usage(self) -> CaptureUsage:
        """How the copies are run, and what each took so far."""
        return CaptureUsage(
            device=self.environment.device,
            layout=self.environment.batch_layout,
            token_budget=min(session.runner.limits.token_budget for session in self._sessions),
            peak_memory_bytes=self._sessions[0].usage.peak_memory_bytes,
            devices=tuple(
                DeviceUsage(
                    session.device,
                    session.runner.n_samples,
                    session.runner.n_tokens,
                    device_peak_bytes(session.device),
                )
                for session in self._sessions
            ),
        )

    def capture(self, samples: Iterable[PreparedSample]) -> Iterator[CapturedBatch]:
        """Measure samples on all devices, see :meth:`nait_store.capture.session.CaptureSession.capture`."""
        edges = EdgeTokens()
        waiting: deque[Future[WorkResult]] = deque()
        # Enough that no device runs dry while the oldest batch is waited for.
        most = 2 * len(self._sessions)
        with ReplicaWorkers(self._sessions) as workers:
            for window in edges.looking_at(windows(samples)):
                planned = self._plan(window)
                while planned:
                    waiting.append(workers.submit(planned.pop()))
                    if len(waiting) > most:
                        yield from self._finished(waiting.popleft())
            while waiting:
                yield from self._finished(waiting.popleft())
        self._edge_warnings += edges.warnings()

    def _plan(self, window: Sequence[PreparedSample]) -> list[list[PreparedSample]]:
        """Plan batches that the smallest copy can hold, the first one last."""
        smallest = min(
            (session.runner for session in self._sessions),
            key=lambda runner: (runner.limits.token_budget, runner.limits.max_samples),
        )
        return smallest.plan(window)

    def _finished(self, future: Future[WorkResult]) -> list[CapturedBatch]:
        result = future.result()
        self.unfit += result.unfit
        return result.captured
