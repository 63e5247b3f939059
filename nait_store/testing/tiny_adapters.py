"""Tiny PEFT adapters with random weights, saved to folders."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any


def save_tiny_adapter(
    folder: Path, model_folder: str | Path, *, kind: str = "LoraConfig", seed: int = 1, **options: Any
) -> Path:
    """Save an adapter over a model, with weights that are large enough to show in every activation.

    Parameters
    ----------
    folder
        Where to save it.
    model_folder
        The base model's folder.
    kind
        Configuration class of PEFT.
    seed
        Of the weights.
    options
        Of the configuration; by default a LoRA of rank 4 over every Linear of a Llama.

    Returns
    -------
    Path
        ``folder``.
    """
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    if kind == "LoraConfig":
        options = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False, **options}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # PEFT reads what transformers has deprecated
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(model_folder)
        adapted = peft.get_peft_model(model, getattr(peft, kind)(task_type="CAUSAL_LM", **options))
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and "ia3" in name:
                parameter.data.uniform_(0.5, 1.5)
        adapted.save_pretrained(folder)
    return folder


def edit_adapter_config(folder: Path, **changes: Any) -> None:
    """Change keys of ``adapter_config.json``; None removes one."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
