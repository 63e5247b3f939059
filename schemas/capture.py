"""What was measured and how: capture identity, settings and provenance.

Three classes of facts, after what a difference between a profile and a set means: the *identity* (the numbers
mean different things: refuse), the *settings* (they are shifted: warn and record), the *environment* (ignore).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from nait_store.schemas.record import Record, Sha256

_LOADED_AS = ("8bit", "4bit")


def _is_absent(value: Any) -> bool:
    return value is None


_LATER = Field(exclude_if=_is_absent)
"""Of fields that came later: a segment's digest is that of its record as it was first written, without them."""


class HookPoint(StrEnum):
    """Where in a decoder layer the neurons are read.

    ``mlp``: input of the FFN's down projection, J = intermediate size. ``residual``: decoder-layer output.
    ``attn``: input of the attention output projection.
    """

    MLP = "mlp"
    RESIDUAL = "residual"
    ATTN = "attn"


class Feature(StrEnum):
    """Reduction of a sample's K content-token vectors to one: mean over K, t_K minus t_1, or t_K.

    ``projections`` is what a set stores that keeps no activations: the terms of its samples' scores.
    """

    MEAN = "mean"
    DRIFT = "drift"
    LAST = "last"
    PROJECTIONS = "projections"


MEASURED_FEATURES = (Feature.MEAN, Feature.DRIFT, Feature.LAST)
"""Those that a model gives."""


class StoredDtype(StrEnum):
    """Element type of stored activations; ``int8`` with a float32 scale for each row and layer."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"
    FLOAT32 = "float32"

    @property
    def is_coded(self) -> bool:
        """Whether the numbers on disk have to be decoded: the store's record must say that it holds such arrays."""
        return self in (StoredDtype.BFLOAT16, StoredDtype.INT8)


class Span(StrEnum):
    """Which of a sample's own tokens count as its content: all turns, or the assistant's only."""

    ALL = "all"
    RESPONSE = "response"


class SpanEdges(StrEnum):
    """``content`` leaves out template scaffolding and special tokens; ``rendered`` takes every rendered token."""

    CONTENT = "content"
    RENDERED = "rendered"


class TemplatePolicy(Record):
    """How a sample became text."""

    name: str
    """``chat`` (the tokenizer's own template), ``alpaca`` or ``plain``."""
    sha256: Sha256
    """Of the template's text."""


class CaptureIdentity(Record):
    """Everything that decides *what is measured*; its hash is the ``capture_id``.

    Features, layers and dtype are contents of a set, checked for coverage, and not part of the identity.
    """

    model_fingerprint: Sha256
    """Tensors and canonical configuration; re-sharding or renaming the checkpoint does not change it."""
    tokenizer_fingerprint: Sha256
    template: TemplatePolicy
    span: Span
    span_edges: SpanEdges
    hook_point: HookPoint
    hook_path: str | None = None
    """Module path within a layer when the user overrode the structural rule."""
    moe_layout: str | None = None
    """``expert-flattened:E×I`` for mixture-of-experts layers hooked at ``mlp``."""

    @property
    def capture_id(self) -> str:
        """First 128 bits of the identity's SHA-256, as 32 hexadecimal digits."""
        return self.digest()[:32]


class CaptureSettings(Record):
    """What shifts the numbers a little; a difference is a warning and is recorded."""

    max_length_tokens: int = Field(ge=1)
    truncation: str = "right"
    compute_dtype: str
    """Dtype of weights and forward pass, ``float32`` or ``bfloat16`` …"""


class CaptureEnvironment(Record):
    """Where and with what it ran; never compared."""

    model_source: str
    """Path or hub id of the model; of the base model where an adapter was laid over it."""
    model_type: str
    model_revision: str | None = None
    adapter_source: Annotated[str | None, _LATER] = None
    """Path or hub id of the adapter, if there was one."""
    adapter_fingerprint: Annotated[Sha256 | None, _LATER] = None
    """Tensors and canonical configuration of the adapter; already part of the identity's ``model_fingerprint``."""
    quantization: Annotated[str | None, _LATER] = None
    """``8bit`` or ``4bit`` if the weights were quantised while they were loaded; else the checkpoint's own method."""
    base_fingerprint: Annotated[Sha256 | None, _LATER] = None
    """The checkpoint's own fingerprint where an adapter or quantisation gave another ``model_fingerprint``."""
    n_parameters: int
    device: str
    batch_layout: str
    token_budget: int
    torch_version: str
    transformers_version: str

    @property
    def model_label(self) -> str:
        """The model and what was done to it, for people: ``./model in 4bit with adapter ./lora``."""
        quantized = f" in {self.quantization}" if self.quantization in _LOADED_AS else ""
        return f"{self.model_source}{quantized}" + (
            f" with adapter {self.adapter_source}" if self.adapter_source else ""
        )

    @property
    def model_options(self) -> str:
        """The same as options of the command line: ``--model ./model --quantization 4bit --adapter ./lora``."""
        quantized = f" --quantization {self.quantization}" if self.quantization in _LOADED_AS else ""
        adapter = f" --adapter {self.adapter_source}" if self.adapter_source else ""
        return f"--model {self.model_source}{quantized}{adapter}"
