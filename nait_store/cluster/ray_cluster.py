"""A Ray cluster for the length of a command: one that runs already, or one that is started on this machine."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nait_store.cluster.first_contact import require_answer
from nait_store.errors import InvalidInputError, MissingExtraError, StorageError

logger = logging.getLogger(__name__)

LOCAL, AUTO = "local", "auto"


@dataclass(frozen=True)
class Machine:
    """What one machine of a cluster lends.

    Attributes
    ----------
    n_cpus, n_gpus
        In all, in use or not.
    """

    n_cpus: float
    n_gpus: float


class RayCluster:
    """A connection to a cluster; made by :func:`ray_cluster`.

    Parameters
    ----------
    ray
        The module.

    Attributes
    ----------
    ray
        As given.
    """

    def __init__(self, ray: Any) -> None:
        self.ray = ray

    @property
    def machines(self) -> Sequence[Machine]:
        """The machines that are there now."""
        resources = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return [Machine(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in resources]

    def result(self, reference: Any) -> Any:
        """Return what a finished task returned, or raise what it raised, as if it had been called here.

        Raises
        ------
        ProcessDiedError
            The process that ran it is gone, or its machine, or the connection.
        """
        exceptions = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except exceptions.RayTaskError as error:
            cause = error.cause
            if not isinstance(cause, Exception):  # it could not travel
                raise StorageError(f"a task of the cluster failed: {error}") from error
            raise cause from None
        except exceptions.RayError as error:
            raise ProcessDiedError(_first_line(error)) from error


class ProcessDiedError(StorageError):
    """A process of the cluster died."""


@contextlib.contextmanager
def ray_cluster(address: str) -> Iterator[RayCluster]:
    """Connect to a cluster, and leave it, or stop it if it was started here, at the end of the block.

    A program that is connected to a cluster already keeps its connection.

    Parameters
    ----------
    address
        ``local`` starts a cluster of this machine. ``auto`` joins the one that runs here, or that ``RAY_ADDRESS``
        names, and starts one where there is none. Anything else is where a running one answers: ``host:port`` from
        one of its machines, ``ray://host:port`` from elsewhere.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    InvalidInputError
        The address is none.
    StorageError
        Nobody answers there, or runs another version of Ray or Python.
    """
    ray = _import_ray()
    if ray.is_initialized():
        yield RayCluster(ray)
        return
    with _quiet(ray):
        _connect(ray, address)
        try:
            yield RayCluster(ray)
        finally:
            ray.shutdown()


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError(
            "working on several machines needs Ray, which is not installed", next_step="pip install 'nait-store[ray]'"
        ) from error


def _connect(ray: Any, address: str) -> None:
    if not address.strip():
        raise InvalidInputError("the address of a Ray cluster is empty", next_step=_ADDRESSES)
    try:
        with _own_sigterm():
            if address == LOCAL or (address == AUTO and not _joined(ray)):
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody was asked whether to report usage
                ray.init(address=LOCAL, include_dashboard=False, **_SILENT)
            elif address != AUTO:
                require_answer(address)
                ray.init(address=address, **_SILENT)
    except ConnectionError as error:
        raise StorageError(
            f"no Ray cluster answers at {address!r}: {_first_line(error)}",
            next_step=f"start one with 'ray start --head', or name another; {_ADDRESSES}. Where the cluster wants "
            "a token, RAY_AUTH_MODE=token sends it",
        ) from error
    except ImportError as error:
        raise MissingExtraError(
            f"{address} needs Ray's client: {_first_line(error)}", next_step="pip install 'ray[client]'"
        ) from error
    except ValueError as error:
        raise InvalidInputError(
            f"{address!r} is no address of a Ray cluster: {_first_line(error)}", next_step=_ADDRESSES
        ) from error
    except Exception as error:  # another version of Ray or Python, a start that takes too long: all of them bare
        raise StorageError(
            f"cannot use the Ray cluster at {address!r}: {_first_line(error)}",
            next_step="see Ray's logs, /tmp/ray/session_latest/logs where it runs",
        ) from error


_ADDRESSES = "an address is local, auto, host:port or ray://host:port"
_SILENT: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


def _joined(ray: Any) -> bool:
    """Join the cluster that ``auto`` means; False where there is none. One that was named has to be there."""
    require_answer(os.environ.get("RAY_ADDRESS", ""))
    try:
        ray.init(address=AUTO, **_SILENT)
    except ConnectionError:
        if os.environ.get("RAY_ADDRESS"):
            raise
        return False
    return True


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's way of meeting SIGTERM, which ``ray.init`` replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Send what Ray prints about processes that died to the log: standard output is for results."""
    worker = getattr(getattr(ray, "_private", None), "worker", None)
    printing = getattr(worker, "print_to_stdstream", None)
    if worker is None or printing is None:  # another release does it in another way
        yield
        return

    def log(data: dict[str, Any], *_: Any, **__: Any) -> None:
        logger.info("ray: %s", " ".join(map(str, data.get("lines", ()))))

    worker.print_to_stdstream = log
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
