"""Tiny random causal language models of many architectures, made from configurations in a fraction of a second.

For tests and trials without a download: every shape is small, sliding windows are short enough to be crossed by a
sentence, and the weights are large enough that every part of a model shows in its activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nait_store.errors import NotFoundError, did_you_mean
from nait_store.testing.tiny_tokenizers import tiny_tokenizer

SLIDING_WINDOW = 7
MAX_POSITIONS = 96
VOCABULARY_SIZE = 512
HIDDEN_SIZE = 32
INTERMEDIATE_SIZE = 48
N_LAYERS = 3

_SHAPE = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": HIDDEN_SIZE,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_POSITIONS,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_GATED = {**_SHAPE, "intermediate_size": INTERMEDIATE_SIZE}
_GROUPED = {**_GATED, "num_key_value_heads": 2}
_EXPERTS = {**_GROUPED, "num_experts_per_tok": 2}
_LAYER_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]

CONFIGURATIONS: Mapping[str, Mapping[str, Any]] = {
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "mistral": {**_GROUPED, "sliding_window": SLIDING_WINDOW, "head_dim": 8},
    "gemma2": {**_GROUPED, "sliding_window": SLIDING_WINDOW, "head_dim": 8, "layer_types": _LAYER_TYPES},
    "gemma3_text": {**_GROUPED, "sliding_window": SLIDING_WINDOW, "head_dim": 8, "layer_types": _LAYER_TYPES},
    "phi3": {**_GROUPED, "sliding_window": SLIDING_WINDOW},
    "gpt2": {**_SHAPE, "n_inner": INTERMEDIATE_SIZE},
    "gpt_neox": _GATED,
    "opt": {**_SHAPE, "ffn_dim": INTERMEDIATE_SIZE, "word_embed_proj_dim": HIDDEN_SIZE},
    "falcon": {**_SHAPE, "ffn_hidden_size": INTERMEDIATE_SIZE, "alibi": False},
    "bloom": {**_SHAPE, "n_head": 4, "n_layer": N_LAYERS},
    "olmo2": _GROUPED,
    "mixtral": {**_EXPERTS, "num_local_experts": 4, "sliding_window": SLIDING_WINDOW},
    "qwen3_moe": {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 24, "head_dim": 8},
}
"""Model type → configuration. BLOOM has no intermediate size: it is 4 · hidden."""

ARCHITECTURES = tuple(CONFIGURATIONS)


def tiny_model(architecture: str, *, seed: int = 0, **overrides: Any) -> Any:
    """Make a causal LM with random float32 weights.

    Parameters
    ----------
    architecture
        One of :data:`ARCHITECTURES`, or any model type of transformers if ``overrides`` give its whole configuration.
    seed
        Of the weights.
    overrides
        Configuration that replaces the tiny one's.

    Returns
    -------
    PreTrainedModel
        In evaluation mode.

    Raises
    ------
    NotFoundError
        There is no tiny configuration of this name.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if architecture not in CONFIGURATIONS and not overrides:
        raise NotFoundError(
            f"there is no tiny {architecture!r} model", next_step=did_you_mean(architecture, ARCHITECTURES)
        )
    config = AutoConfig.for_model(architecture, **{**CONFIGURATIONS.get(architecture, {}), **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for module in model.modules():
                for parameter in module.parameters(recurse=False):
                    noise = torch.randn_like(parameter)
                    if isinstance(module, torch.nn.Embedding):
                        parameter.copy_(noise)
                    elif parameter.ndim >= 2:
                        parameter.copy_(noise * parameter.shape[-1] ** -0.5)
                    else:
                        parameter.add_(noise * 0.1)
    return model.eval().requires_grad_(False)


def save_tiny_model(folder: str | Path, architecture: str = "llama", *, seed: int = 0, **overrides: Any) -> Path:
    """Make a tiny model and save it with a tokenizer, as a folder that ``--model`` takes.

    Parameters
    ----------
    folder
        Created if need be.
    architecture, seed, overrides
        See :func:`tiny_model`.

    Returns
    -------
    Path
        The folder.
    """
    target = Path(folder)
    model = tiny_model(architecture, seed=seed, **overrides)
    model.save_pretrained(target)
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = MAX_POSITIONS
    tokenizer.save_pretrained(target)
    return target
