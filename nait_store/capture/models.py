"""Loading a causal language model and its tokenizer, from a folder or the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nait_store.capture.adapters import Adapter, apply_adapter, doubts_about, resolve_adapter
from nait_store.capture.checkpoints import find_checkpoint, local_folder, read_config
from nait_store.capture.loading_errors import first_line, loading_errors, quiet_transformers
from nait_store.capture.placement import (
    DeviceMap,
    Placement,
    execution_device,
    is_offloaded,
    places,
    plan_placement,
    require_accelerate,
)
from nait_store.capture.quantization import Quantization, plan_quantization
from nait_store.errors import IncompatibleError, InvalidInputError, MissingExtraError, did_you_mean

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to run, in evaluation mode, and what to record about it.

    Attributes
    ----------
    model
        ``transformers`` causal LM; its base model (``get_decoder()``) is what capture runs.
    tokenizer
        Its tokenizer, unchanged: what is needed for padding is ``pad_token_id``.
    source
        Folder or hub id of the base model.
    model_type
        ``llama``, ``gpt2`` …
    n_parameters
        Parameters, tied ones once.
    hidden_size, n_layers
        Of the text decoder.
    dtype
        Of the weights as loaded, ``float32`` or ``bfloat16`` …
    device
        Where it runs, ``cpu``, ``cuda:0`` …; where its inputs go, if it is spread over several.
    devices
        All of them, ``cuda:0, cuda:1, disk``, for people.
    max_positions
        Longest sequence that the model is made for; None if it does not say.
    revision
        Commit of a hub model; None for a folder.
    vocabulary_size
        Rows of the input embedding: token ids must be below it.
    pad_token_id
        A valid id for filling up a batch: the tokenizer's padding token, else its end token, else 0.
    adapter
        What was laid over the base model; None if nothing was.
    quantization
        How its weights are quantised; None if they are plain.
    warnings
        What the user should know about how the parts go together.
    """

    model: Any
    tokenizer: Any
    source: str
    model_type: str
    n_parameters: int
    hidden_size: int
    n_layers: int
    dtype: str
    device: str
    max_positions: int | None
    revision: str | None
    vocabulary_size: int | None = None
    pad_token_id: int = 0
    devices: str = ""
    adapter: Adapter | None = None
    quantization: Quantization | None = None
    warnings: tuple[str, ...] = ()


def load_model(
    source: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    adapter: str | None = None,
    device_map: DeviceMap | None = None,
    max_memory: Mapping[str, str | int] | None = None,
    quantization: str | None = None,
) -> LoadedModel:
    """Load a causal LM and its tokenizer.

    Parameters
    ----------
    source
        A folder that ``save_pretrained`` wrote, or a hub id. A PEFT adapter's folder stands for the adapter over the
        base model that it names.
    dtype
        ``auto``: the checkpoint's; float16 and float64 become float32 on a CPU, which has no fast float16 and
        where float16 overflows. Or ``float32``, ``bfloat16``, ``float16``.
    device
        ``auto``: a CUDA device if there is one, else the CPU. Or any name that torch knows.
    trust_remote_code
        Whether Python code that comes with the checkpoint may run.
    adapter
        Folder or hub id of a PEFT adapter to lay over the model. Its tokenizer is used where it has one.
    device_map, max_memory
        How to spread the model over devices, see :func:`~nait_store.capture.placement.plan_placement`.
    quantization
        ``8bit`` or ``4bit``: quantise the weights while they are loaded.

    Returns
    -------
    LoadedModel
        In evaluation mode, without gradients.

    Raises
    ------
    NotFoundError
        No such folder, no such hub model, or the hub cannot be reached.
    InvalidInputError
        No config.json, no weights, damaged or incomplete weights, code that is not trusted, an architecture that
        transformers does not know or that is no causal decoder, no tokenizer, an unknown dtype or device, an adapter
        of another architecture.
    IncompatibleError
        The adapter is of a kind that does not change the model's layers alone, or the model is offloaded.
    MissingExtraError
        PEFT, accelerate, bitsandbytes or whatever else the model needs is not installed.
    """
    if dtype not in DTYPES:
        raise InvalidInputError(f"{dtype!r} is not a dtype to compute in", next_step=did_you_mean(dtype, DTYPES))
    source, laid_over = resolve_adapter(source, adapter)
    folder = local_folder(source)
    if folder is not None:
        raw_config = read_config(folder, source)
        if "auto_map" not in raw_config and "model_type" not in raw_config:
            raise InvalidInputError(
                f"{source}: config.json names no model_type", next_step="give the folder of a transformers causal LM"
            )
    placement = plan_placement(device_map, max_memory, device)
    torch_device = _choose_device(device)
    with quiet_transformers(), loading_errors(source):
        config = _load_config(source, trust_remote_code)
        _require_causal_decoder(config, source)
        if folder is not None:
            find_checkpoint(source)  # weights missing or incomplete: said here in plainer words
        own_tokenizer = laid_over.tokenizer_source if laid_over is not None else None
        tokenizer = _load_tokenizer(own_tokenizer or source, trust_remote_code)
        quantized = plan_quantization(quantization, config, source)
        if quantized is not None and placement is None:
            # Packed weights cannot be moved afterwards, so they are loaded where they belong.
            require_accelerate("a quantised model")
            placement = Placement({"": str(torch_device)})
        if placement is not None and dtype == "auto" and str(torch_device) == "cpu" and _narrow(config):
            dtype = "float32"  # what is offloaded or packed cannot be converted later
        model = _load_weights(source, config, dtype, trust_remote_code, placement, quantized)
        if placement is None:
            if dtype == "auto" and str(torch_device) == "cpu" and _dtype_name(model) in ("float16", "float64"):
                model = model.float()
            model = model.to(torch_device)
        elif laid_over is not None and is_offloaded(model):
            raise IncompatibleError(
                f"the adapter {laid_over.source} cannot be laid over a model that is partly offloaded",
                next_step="raise --max-memory, or merge the adapter into a model of its own with PEFT",
            )
        compute_dtype = _dtype_name(model)  # PEFT may keep its own weights in another one
        if laid_over is not None:
            model = apply_adapter(model, laid_over, source)
        model = model.eval().requires_grad_(False)
    text_config = config.get_text_config(decoder=True)
    input_device = execution_device(model.get_input_embeddings())
    vocabulary_size = int(model.get_input_embeddings().weight.shape[0])
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        source=source,
        model_type=str(config.model_type),
        n_parameters=model.num_parameters(),
        hidden_size=int(text_config.hidden_size),
        n_layers=int(text_config.num_hidden_layers),
        dtype=compute_dtype,
        device=input_device,
        devices=places(model, input_device),
        max_positions=_max_positions(text_config, tokenizer),
        revision=find_checkpoint(source).revision,
        vocabulary_size=vocabulary_size,
        pad_token_id=_pad_token_id(tokenizer, vocabulary_size),
        adapter=laid_over,
        quantization=quantized,
        warnings=() if laid_over is None else tuple(doubts_about(laid_over, source)),
    )


def _load_config(source: str, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)


def _require_causal_decoder(config: Any, source: str) -> None:
    """Refuse encoder-decoders and encoders before their weights are loaded."""
    from transformers.models.auto import modeling_auto

    what = None
    if getattr(config, "is_encoder_decoder", False):
        what = "an encoder-decoder"
    elif config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(
        config, "is_decoder", False
    ):
        what = "a bidirectional encoder"
    elif config.model_type not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and "AutoModelForCausalLM" not in (
        getattr(config, "auto_map", None) or {}
    ):
        what = "no causal language model"
    if what:
        raise InvalidInputError(
            f"{source} (model type {config.model_type!r}) is {what}: its activations are not those of a decoder",
            next_step="choose a decoder-only model, e.g. of the Llama, Qwen, Mistral or GPT families",
        )


def _load_tokenizer(source: str, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (ValueError, OSError, KeyError, TypeError, ImportError) as error:
        if "trust_remote_code" in str(error):
            raise
        raise InvalidInputError(
            f"{source} has no tokenizer that can be loaded: {first_line(error)}",
            next_step="put the model's tokenizer.json and tokenizer_config.json into its folder"
            + (" (or: pip install sentencepiece)" if "sentencepiece" in str(error) else ""),
        ) from error
    if not len(tokenizer):
        raise InvalidInputError(
            f"{source} has an empty tokenizer", next_step="put the model's tokenizer.json into its folder"
        )
    return tokenizer


def _load_weights(
    source: str,
    config: Any,
    dtype: str,
    trust_remote_code: bool,
    placement: Placement | None,
    quantized: Quantization | None,
) -> Any:
    """Load the model; weights that the checkpoint lacks must not be made up."""
    from transformers import AutoModelForCausalLM

    options = placement.loading_options() if placement is not None else {}
    if quantized is not None:
        stored = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
        options |= quantized.loading_options(stored if dtype == "auto" else dtype)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **options,
        )
    except ImportError as error:
        if quantized is None:
            raise
        raise MissingExtraError(
            f"{source} is quantised ({quantized.name}), which the installed packages cannot run: {first_line(error)}",
            next_step="install the package that is named, or choose the model in another form",
        ) from error
    head = model.get_output_embeddings()
    head_parameters = set() if head is None else {id(parameter) for parameter in head.parameters()}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    # The language-model head is not run, so it may be missing.
    missing = sorted(
        name
        for name in report["missing_keys"]
        if name in parameters and (id(parameters[name]) not in head_parameters or _is_tied(model))
    )
    if missing:
        raise InvalidInputError(
            f"the weights of {source} lack {len(missing)} of the model's tensors, first {missing[0]}",
            next_step="check that config.json and weights belong together, or download the model again",
        )
    return model


def _is_tied(model: Any) -> bool:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and getattr(head, "weight", None) is getattr(embedding, "weight", None)


def _choose_device(device: str) -> Any:
    import torch

    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidInputError(
            f"the device {device!r} cannot be used: {first_line(error)}",
            next_step="use --device cpu, or --device auto",
        ) from error
    return chosen


def _narrow(config: Any) -> bool:
    """Whether a checkpoint says that its weights are of a dtype that a CPU is not made for."""
    return str(getattr(config, "dtype", None)).removeprefix("torch.") in ("float16", "float64")


def _dtype_name(model: Any) -> str:
    return str(model.dtype).removeprefix("torch.")


def _max_positions(text_config: Any, tokenizer: Any) -> int | None:
    limit = getattr(text_config, "max_position_embeddings", None)
    if limit is None:
        limit = getattr(tokenizer, "model_max_length", None)  # a huge number where it is not known
    return int(limit) if isinstance(limit, int) and 0 < limit < 10**9 else None


def _pad_token_id(tokenizer: Any, vocabulary_size: int) -> int:
    for name in ("pad_token_id", "eos_token_id"):
        token_id = getattr(tokenizer, name, None)
        if isinstance(token_id, int) and 0 <= token_id < vocabulary_size:
            return token_id
    return 0
