"""The store's work on a Ray cluster: what a worker needs to do its part is put together here."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nait_store.cluster.ray_cluster import ray_cluster
from nait_store.errors import InvalidInputError
from nait_store.store import ingesting

if TYPE_CHECKING:
    from nait_store.activations.set_version import SetVersion
    from nait_store.ingest.capture_source import CaptureSource
    from nait_store.ingest.requests import EstimateListener, IngestReport, IngestRequest
    from nait_store.scoring.completion import ScoreWork
    from nait_store.scoring.targets import ScoringTarget
    from nait_store.store.facade import Store
    from nait_store.store.options import IngestOptions


def ingest_on_cluster(
    store: Store,
    model: str,
    request: IngestRequest,
    options: IngestOptions,
    capture: CaptureSource | None,
    announce: EstimateListener,
) -> IngestReport:
    """Ingest with the workers of the cluster that ``options`` names; see :meth:`nait_store.store.facade.Store.ingest`.

    Raises
    ------
    InvalidInputError
        An open capture session: it belongs to this process.
    """
    from nait_store.cluster.ingesting import ingest_on

    if capture is not None:
        raise InvalidInputError(
            "an open capture session stays in its process", next_step="leave out capture, or leave out ray"
        )
    gpus = options.get("ray_gpus_per_worker")
    theirs = options.copy()
    if gpus is not None and gpus > 1 and options.get("device_map") is None and options.get("devices") is None:
        theirs["device_map"] = "auto"
    for name in ("adapter", "device_map"):
        value = theirs.get(name)
        if isinstance(value, str):
            theirs[name] = _absolute(value)
    with ray_cluster(options.get("ray") or "") as cluster:
        return ingest_on(
            cluster,
            store.location,
            functools.partial(ingesting.open_capture, _absolute(model), request, theirs),
            request,
            store.progress,
            announce,
            n_workers=options.get("ray_workers"),
            gpus_per_worker=gpus,
        )


def score_on_cluster(store: Store, address: str, version: SetVersion, targets: Sequence[ScoringTarget]) -> ScoreWork:
    """Compute missing scores with the tasks of a cluster; see :meth:`nait_store.store.facade.Store.score`."""
    from nait_store.cluster.scoring import ensure_scores_on

    with ray_cluster(address) as cluster:
        return ensure_scores_on(cluster, store.location, version, targets, store.progress)


def _absolute(name: str) -> str:
    """A worker has another working folder; what is no path here, a hub id or ``auto``, stays as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name
