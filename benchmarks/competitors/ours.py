"""Our store, under the same contract: a set of one segment, scanned without sidecars."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.competitors.competitor import Competitor, Scan, row_blocks
from benchmarks.scan import scan_to_memory
from nait_store.activations.versions import ActivationSets
from nait_store.activations.writer import SegmentWriter
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.profile import Metric
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location
from nait_store.testing.stores import ENVIRONMENT, SETTINGS, fake_identity, fake_row, fake_set_record

_APPEND_ROWS = 64


class Ours(Competitor):
    """A set of halves."""

    name = "nait-store"
    setup = "a set of one segment, float16; a scan of all of it, no sidecars"
    dtype: ClassVar[StoredDtype] = StoredDtype.FLOAT16

    def write(self, activations: NDArray[np.float16], folder: Path) -> None:
        """Commit the set ``pool``."""
        n, n_layers, n_neurons = activations.shape
        location = Location(str(folder))
        sets = ActivationSets(location)
        sets.create(fake_set_record("pool", n_layers=n_layers, n_neurons=n_neurons))
        writer = SegmentWriter(
            location,
            "pool",
            identity=fake_identity(),
            layers=range(n_layers),
            n_neurons=n_neurons,
            features=[Feature.MEAN],
            dtype=self.dtype,
            settings=SETTINGS,
            environment=ENVIRONMENT,
            expected_rows=n,
        )
        for rows in row_blocks(n, _APPEND_ROWS):
            samples = [fake_row(f"s{i:07d}", i) for i in range(rows.start, rows.stop)]
            writer.append(samples, {Feature.MEAN: activations[rows].astype(np.float32)})
        record = writer.close()
        if record is None:
            raise RuntimeError("no rows were written")
        sets.commit("pool", [record], ingest_ids=())

    def open(self, folder: Path) -> Scan:
        """Open the set."""
        version = ActivationSets(Location(str(folder))).open("pool")
        layers = tuple(version.layers)

        def scan(directions: NDArray[np.float32]) -> NDArray[Any]:
            targets = [ScoringTarget(v, None, layers, Feature.MEAN, Metric.DOT) for v in directions]
            return scan_to_memory(version, targets)

        return scan


class OursInt8(Ours):
    """A set of bytes with a scale for each row and layer."""

    name = "nait-store, int8"
    setup = "the same as int8; half of the bytes, rounded"
    tolerance = 0.1
    dtype = StoredDtype.INT8
