"""Stores captured with tiny models, and what these models give token by token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import nait_store
from nait_store.testing.tiny_models import save_tiny_model
from nait_store.testing.tiny_tokenizers import CHATML_TEMPLATE, tiny_tokenizer

WORDS = ("add", "sum", "the", "number", "of", "what", "is", "write", "function", "return", "how", "many")
MAX_LENGTH_TOKENS = 60
N_POOL = 40


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def records(n: int, source: str, *, seed: int, least: int = 2, longest: int = 30) -> list[dict[str, Any]]:
    """Records of very different lengths."""
    rng = np.random.default_rng(seed)
    return [
        {
            "key": f"{source}-{i:03d}",
            "source": source,
            "question": " ".join(rng.choice(WORDS, least + i % longest)),
            "answer": " ".join(rng.choice(WORDS, 1 + i % 7)),
        }
        for i in range(n)
    ]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@dataclass(frozen=True)
class Audited:
    """A store, and the model that its sets were captured with.

    Attributes
    ----------
    store
        Sets ``pool``, ``chat`` (content), ``rendered``; profiles of each.
    folder
        Holds ``model`` and ``chat-model``.
    pool
        Records of the pool in their order.
    """

    store: nait_store.Store
    folder: Path
    pool: list[dict[str, Any]]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    folder = tmp_path_factory.mktemp("audited")
    plain = str(save_tiny_model(folder / "model", "llama"))
    chat = save_tiny_model(folder / "chat-model", "llama")
    tokenizer = tiny_tokenizer(chat_template="<s>" + CHATML_TEMPLATE)
    tokenizer.model_max_length = 96
    tokenizer.save_pretrained(chat)
    pool = [*records(N_POOL - 10, "short", seed=1, longest=20), *records(6, "long", seed=2, least=57)]
    pool += [{**pool[i], "key": f"again-{i}-{copy}"} for i, n in ((3, 1), (7, 3)) for copy in range(n)]
    store = nait_store.open(str(folder / "store"), create=True)
    options: dict[str, Any] = {"id_field": "key", "max_length": MAX_LENGTH_TOKENS, "device": "cpu"}
    files = {
        "pool": write(folder / "pool.jsonl", pool),
        "maths": write(folder / "maths.jsonl", records(16, "maths", seed=3)),
        "few": write(folder / "few.jsonl", records(12, "few", seed=4, longest=12)),
    }
    store.ingest(files["pool"], set="pool", model=plain, **options)
    store.ingest(files["maths"], set="maths", model=plain, **options)
    store.profiles.build("math", source="maths", metric="dot")
    store.profiles.build("cosine", source="maths", against="pool")
    for name, edges in (("chat", "content"), ("rendered", "rendered")):
        store.ingest(files["few"], set=name, model=str(chat), span_edges=edges, **options)
        store.ingest(
            files["maths"],
            set=f"{name}-maths",
            model=str(chat),
            span_edges=edges,
            features=["mean", "drift"],
            **options,
        )
        store.profiles.build(name, source=f"{name}-maths")
    store.ingest(files["few"], set="drifts", model=plain, features=["mean", "drift"], **options)
    store.profiles.build("drift", source="maths", layers=[0, 2], metric="dot")
    return Audited(store, folder, pool)


def token_vectors(model: Any, token_ids: Sequence[int]) -> NDArray[np.float64]:
    """What enters every layer's down projection at each token, [L, T, J], of one sample alone."""
    found: list[NDArray[np.float64]] = []
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, given: found.append(given[0][0].double().numpy()))
        for layer in model.model.layers
    ]
    with torch.inference_mode():
        model(torch.tensor([list(token_ids)]))
    for hook in hooks:
        hook.remove()
    return np.stack(found)
