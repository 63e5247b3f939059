"""Weights of few bits: quantised while they are loaded, or quantised in the checkpoint already."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from nait_store.errors import InvalidInputError, MissingExtraError, did_you_mean

QUANTIZATIONS = ("8bit", "4bit")
_DEFINITIONS: dict[str, dict[str, Any]] = {
    "8bit": {"method": "bitsandbytes", "bits": 8, "outlier_threshold": 6.0},
    "4bit": {"method": "bitsandbytes", "bits": 4, "type": "nf4", "double_quantization": False},
}
"""What decides the numbers, for fingerprints. nf4 and not bitsandbytes' default fp4: it is what QLoRA trains over, and
closer to the weights; without double quantisation, which saves 0.4 bits a weight and rounds once more."""


@dataclass(frozen=True)
class Quantization:
    """How a model's weights are quantised.

    Attributes
    ----------
    name
        ``8bit`` or ``4bit``; or the method of a checkpoint that was quantised before, ``gptq``, ``awq``, ``fp8`` …
    in_checkpoint
        Whether the checkpoint holds packed weights; its fingerprint covers them then.
    """

    name: str
    in_checkpoint: bool

    @property
    def definition(self) -> dict[str, Any] | None:
        """What is done to the weights while they are loaded; None if nothing is."""
        return None if self.in_checkpoint else _DEFINITIONS[self.name]

    def loading_options(self, dtype: str) -> dict[str, Any]:
        """Return what ``from_pretrained`` takes.

        Parameters
        ----------
        dtype
            The dtype that 4-bit weights are unpacked to for their products; 8-bit ones have a kernel of their own.
        """
        if self.in_checkpoint:
            return {}
        import torch
        from transformers import BitsAndBytesConfig

        if self.name == "8bit":
            config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=_DEFINITIONS["8bit"]["outlier_threshold"])
        else:
            config = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=_DEFINITIONS["4bit"]["type"],
                bnb_4bit_use_double_quant=_DEFINITIONS["4bit"]["double_quantization"],
                bnb_4bit_compute_dtype=getattr(torch, dtype),
            )
        return {"quantization_config": config}


def plan_quantization(requested: str | None, config: Any, source: str) -> Quantization | None:
    """Check how a model is to be quantised, or is.

    Parameters
    ----------
    requested
        One of :data:`QUANTIZATIONS`, or None.
    config
        The model's ``transformers`` configuration.
    source
        Its name, for messages.

    Returns
    -------
    Quantization or None
        None where the weights are plain.

    Raises
    ------
    InvalidInputError
        No such quantisation, or the checkpoint is quantised already.
    MissingExtraError
        bitsandbytes is not installed.
    """
    if requested is not None and requested not in QUANTIZATIONS:
        raise InvalidInputError(
            f"{requested!r} is not a quantisation", next_step=did_you_mean(requested, QUANTIZATIONS)
        )
    found = getattr(config, "quantization_config", None)
    if found:
        settings = found if isinstance(found, dict) else found.to_dict()
        method = str(settings.get("quant_method", "unknown"))
        if requested is not None:
            raise InvalidInputError(
                f"{source} is quantised already ({method}), and cannot be quantised to {requested} again",
                next_step="leave out --quantization",
            )
        return Quantization(method, in_checkpoint=True)
    if requested is None:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError(
            f"--quantization {requested} needs bitsandbytes, which is not installed",
            next_step="pip install 'nait-store[bitsandbytes]'",
        )
    return Quantization(requested, in_checkpoint=False)
