"""PEFT adapters: found, recognised, and laid over their base model without being merged into its weights.

Not merged, because the unmerged model is what PEFT computes and what was trained: merging rounds W + ΔW to the dtype of
the weights (in bfloat16 a part of a small ΔW is lost) and cannot be done exactly in quantised weights. The price is the
adapter's own matrix products in every pass.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nait_store.capture.checkpoints import WeightFormat, cached_snapshot, local_folder
from nait_store.capture.loading_errors import first_line
from nait_store.errors import IncompatibleError, InvalidInputError, MissingExtraError, NotFoundError

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS: tuple[tuple[str, WeightFormat], ...] = (
    ("adapter_model.safetensors", "safetensors"),
    ("adapter_model.bin", "pickle"),
)
_SAVED_ONLY = frozenset({"base_model_name_or_path", "revision", "auto_mapping", "inference_mode", "peft_version"})
"""Configuration that says how an adapter was saved, not what it computes."""
_NEEDS_WHOLE_MODEL = "changes what goes into the model, or picks its weights from sample to sample"


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk.

    Attributes
    ----------
    source
        Folder or hub id, as given.
    folder
        Where its files lie.
    config
        ``adapter_config.json``, as written.
    weight_files
        The file of its weights.
    weight_format
        ``safetensors`` or ``pickle``.
    """

    source: str
    folder: Path
    config: dict[str, Any]
    weight_files: tuple[Path, ...]
    weight_format: WeightFormat

    @property
    def kind(self) -> str:
        """PEFT's name of the method, e.g. ``LORA`` or ``IA3``."""
        return str(self.config.get("peft_type", "unknown"))

    @property
    def tokenizer_source(self) -> str | None:
        """Where its own tokenizer is loaded from; None where none was saved with it."""
        return self.source if (self.folder / "tokenizer_config.json").is_file() else None

    def canonical_config(self) -> dict[str, Any]:
        """Return what decides its computation: without what says how it was saved, and without what is unset.

        Releases of PEFT add options that are unset in older adapters, and write sets of names in any order.
        """
        return {
            key: sorted(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value
            for key, value in self.config.items()
            if key not in _SAVED_ONLY and value not in (None, False, "", [], {})
        }


def is_adapter(source: str) -> bool:
    """Whether a model's name stands for an adapter's folder: it has an adapter's configuration, and no model's."""
    folder = local_folder(source) or cached_snapshot(source, ADAPTER_CONFIG)
    return folder is not None and (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def find_adapter(source: str) -> Adapter:
    """Find an adapter's files; one on the hub is downloaded.

    Parameters
    ----------
    source
        A folder that PEFT's ``save_pretrained`` wrote, or a hub id.

    Raises
    ------
    NotFoundError
        No such folder or hub repository.
    InvalidInputError
        No adapter_config.json, or a damaged one, or no weights.
    """
    folder = local_folder(source, kind="adapter")
    if folder is None:
        folder = _download(source)
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        what = "a whole model, not an adapter" if (folder / "config.json").is_file() else "no adapter folder"
        raise InvalidInputError(
            f"{source} is {what}: it has no {ADAPTER_CONFIG}",
            next_step="give the folder that PEFT's save_pretrained wrote",
        )
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not valid JSON: {error}", next_step="save the adapter again") from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise InvalidInputError(f"{path} names no peft_type", next_step="save the adapter again")
    for name, weight_format in _WEIGHTS:
        if (folder / name).is_file():
            return Adapter(source, folder, config, (folder / name,), weight_format)
    raise InvalidInputError(
        f"{source} has no weights: neither {' nor '.join(name for name, _ in _WEIGHTS)}",
        next_step="save the adapter again, weights included",
    )


def resolve_adapter(model_source: str, adapter_source: str | None) -> tuple[str, Adapter | None]:
    """Say which base model and which adapter are meant.

    Parameters
    ----------
    model_source
        A model; or an adapter, which then names its base model itself.
    adapter_source
        An adapter to lay over the model.

    Returns
    -------
    base, adapter
        Folder or hub id of the base model; None where no adapter is meant.

    Raises
    ------
    NotFoundError
        The base model that an adapter names is not there.
    InvalidInputError
        The adapter does not name its base model, or an adapter is to be laid over another one.
    """
    if not is_adapter(model_source):
        return model_source, None if adapter_source is None else find_adapter(adapter_source)
    if adapter_source is not None:
        raise InvalidInputError(
            f"{model_source} is an adapter itself, and {adapter_source} cannot be laid over it",
            next_step=f"name the base model: --model BASE --adapter {adapter_source}",
        )
    adapter = find_adapter(model_source)
    ask = f"name the base model: --model BASE --adapter {model_source}"
    named = adapter.config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named.strip():
        raise InvalidInputError(f"{model_source} is an adapter that does not say of which base model", next_step=ask)
    beside = adapter.folder / named
    base = str(beside) if not Path(named).expanduser().is_dir() and beside.is_dir() else named
    try:
        local_folder(base)
        nested = is_adapter(base)
    except (NotFoundError, InvalidInputError) as error:
        raise NotFoundError(
            f"{model_source} is an adapter of the base model {named}, which is not there", next_step=ask
        ) from error
    if nested:
        raise InvalidInputError(f"{model_source} is an adapter of {named}, an adapter too", next_step=ask)
    return base, adapter


def doubts_about(adapter: Adapter, base: str) -> list[str]:
    """Return a warning where the adapter names another base model than the one it is laid over."""
    named = adapter.config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named.strip() or Path(named).name == Path(base).expanduser().resolve().name:
        return []
    return [f"the adapter {adapter.source} says that it was trained over {named}, and is laid over {base}"]


def apply_adapter(model: Any, adapter: Adapter, base: str) -> Any:
    """Lay an adapter over a loaded model.

    Parameters
    ----------
    model
        ``transformers`` causal LM on its device; it is changed.
    adapter
        What to lay over it.
    base
        The model's name, for messages.

    Returns
    -------
    module
        The same causal LM, its layers wrapped by PEFT's.

    Raises
    ------
    MissingExtraError
        PEFT is not installed.
    IncompatibleError
        The adapter works on the model as a whole, which is not what capture runs.
    InvalidInputError
        It was made for another architecture.
    """
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise MissingExtraError(
            f"the adapter {adapter.source} needs PEFT, which is not installed: {error}",
            next_step="pip install 'nait-store[peft]'",
        ) from error

    misfit = InvalidInputError(
        f"the adapter {adapter.source} ({adapter.kind}) does not fit the model {base}",
        next_step="name the model that it was trained over: --model BASE --adapter ADAPTER",
    )
    try:
        config = PeftConfig.from_pretrained(str(adapter.folder))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"the adapter {adapter.source} is of a kind that the installed PEFT does not know: {first_line(error)}",
            next_step="upgrade: pip install --upgrade peft",
        ) from error
    _require_layer_adapter(config, adapter)
    config.inference_mode = True
    device = str(model.get_input_embeddings().weight.device)
    try:
        adapted = PeftModel(model, config)
        report = adapted.load_adapter(
            str(adapter.folder),
            "default",
            torch_device=device,
            key_mapping=getattr(model, "_checkpoint_conversion_mapping", {}),
        )
    except (ValueError, RuntimeError, KeyError) as error:
        misfit.what += f": {_reason(error)}"
        raise misfit from error
    # Whatever the weights lack is made up at random, and what they have too much is a layer that the model has not.
    shared = ("vblora_vector_bank", ".tinylora_v.", ".unilora_theta_d.")
    missing = [name for name in report.missing_keys if not any(part in name for part in shared)]
    if missing or report.unexpected_keys:
        what, names = ("lacks", missing) if missing else ("is too many for it by", report.unexpected_keys)
        misfit.what += f": it {what} {len(names)} tensors, first {sorted(names)[0]}"
        raise misfit
    return adapted.get_base_model()


def _require_layer_adapter(config: Any, adapter: Adapter) -> None:
    """Refuse adapters that PEFT applies around the decoder: capture runs the decoder alone."""
    around = config.is_prompt_learning or config.is_adaption_prompt or adapter.kind == "XLORA"
    if around or getattr(config, "alora_invocation_tokens", None):
        raise IncompatibleError(
            f"the adapter {adapter.source} ({adapter.kind}) {_NEEDS_WHOLE_MODEL}: only adapters that change a model's "
            "layers (LoRA, DoRA, IA3 and their like) can be captured",
            next_step="capture the base model, or merge the adapter into a model of its own with PEFT",
        )


def _reason(error: BaseException) -> str:
    text = str(error)
    if "size mismatch" in text:
        return "its tensors have other shapes than the model's layers"
    if "arget modules" in text and "not found" in text:
        return "the model has no modules of the names that the adapter changes"
    return first_line(error)


def _download(source: str) -> Path:
    from transformers.utils import cached_file

    try:
        found = cached_file(source, ADAPTER_CONFIG)
    except (OSError, ValueError) as error:
        raise NotFoundError(
            f"the adapter {source!r} is neither a folder here nor on the hub that can be reached: {first_line(error)}",
            next_step="check the spelling, the network and (if it is gated) your access, or give a folder",
        ) from error
    for name in (*(weights for weights, _ in _WEIGHTS), "tokenizer_config.json"):
        with contextlib.suppress(OSError, ValueError):  # one of the weights and the tokenizer may be absent
            cached_file(source, name)
    return Path(found).parent
