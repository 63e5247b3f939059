"""The whole way with a model: the features in the store are those that the capture session gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from nait_store.activations.verify import verify_set
from nait_store.activations.versions import ActivationSets
from nait_store.capture.conversations import make_sample
from nait_store.capture.readers import read_records
from nait_store.capture.rendering import PreparedSample
from nait_store.capture.session import CaptureSession
from nait_store.ingest.job import ingest
from nait_store.ingest.requests import FlushPolicy, IngestRequest
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.tiny_models import save_tiny_model

_FEATURES = (Feature.MEAN, Feature.DRIFT, Feature.LAST)


def test_a_real_models_features_arrive_in_the_store(location: Location, tmp_path: Path) -> None:
    torch.set_num_threads(1)  # a tiny model gains nothing from more, and the writer runs beside it
    source = tmp_path / "pool.jsonl"
    records = [{"id": i, "instruction": "add " * (1 + i % 7), "output": f"{i} and {2 * i}"} for i in range(30)]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    model = save_tiny_model(tmp_path / "model")
    with CaptureSession.open(str(model), features=_FEATURES, compute_dtype="float32", device="cpu") as session:
        request = IngestRequest((str(source),), "pool", features=_FEATURES, id_field="id", flush=FlushPolicy(rows=10))
        report = ingest(location, session, request)
        assert (report.set_ref, report.n_added, report.n_rejected) == ("pool@1", 30, 0)
        assert ingest(location, session, request).n_known == 30

        samples = [make_sample(record, id_field="id") for record in read_records(str(source))]
        alone = {}
        for sample in samples:
            prepared = session.renderer.prepare([sample])
            assert isinstance(prepared[0], PreparedSample)
            (batch,) = session.capture([prepared[0]])
            alone[sample.sample_id] = (batch.features, prepared[0].row())

    version = ActivationSets(location).open("pool")
    assert version.record.identity == session.identity
    assert version.features == _FEATURES
    n_seen = 0
    for segment in version.segments:
        rows = segment.samples().to_pylist()
        stored = {feature: segment.read(feature).astype(np.float64) for feature in _FEATURES}
        for i, row in enumerate(rows):
            features, expected = alone[row["sample_id"]]
            assert (row["n_tokens"], row["n_content_tokens"]) == (expected.n_tokens, expected.n_content_tokens)
            for feature in _FEATURES:
                for layer in range(len(session.layers)):
                    exact = features[feature][0, layer].astype(np.float64)
                    error = np.linalg.norm(stored[feature][i, layer] - exact)
                    assert error <= 1e-3 * np.linalg.norm(exact) + 1e-6
            n_seen += 1
    assert n_seen == 30
    assert verify_set(ActivationSets(location), "pool") == []
