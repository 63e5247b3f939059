"""Tiny checkpoints on disk, made once and copied."""

import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nait_store.testing.tiny_tokenizers import tiny_tokenizer


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def tiny_llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def saved_llama(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "llama"
    tiny_llama.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(saved_llama, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(saved_llama, tmp_path / "model")
