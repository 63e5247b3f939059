"""From the options of an ingest, as given, to its request and its capture session."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from nait_store.errors import InvalidInputError, did_you_mean
from nait_store.ingest.requests import IngestRequest
from nait_store.refs import Kind, check_name
from nait_store.schemas.capture import MEASURED_FEATURES, Feature, HookPoint, Span, SpanEdges, StoredDtype

if TYPE_CHECKING:
    from nait_store.ingest.capture_source import CaptureSource
    from nait_store.schemas.record import SourceFile
    from nait_store.store.options import IngestOptions

E = TypeVar("E", bound=StrEnum)


def plan_request(
    sources: str | Sequence[str],
    set_name: str,
    features: Sequence[str],
    options: IngestOptions,
    *,
    find: Callable[[Sequence[str]], Sequence[SourceFile]] | None = None,
) -> IngestRequest:
    """Check everything that can be checked before a model is loaded.

    Parameters
    ----------
    sources, set_name, features, options
        As given to :meth:`nait_store.store.facade.Store.ingest`.
    find
        Finds the input, :func:`nait_store.capture.readers.open_sources` if omitted.

    Raises
    ------
    InvalidInputError
        Bad name, feature, map, dtype or limit.
    NotFoundError
        A source does not exist.
    """
    from nait_store.capture.field_maps import FieldMap
    from nait_store.capture.readers import open_sources

    check_name(set_name, Kind.SET)
    chosen = tuple(dict.fromkeys(_choice(Feature, feature, "feature") for feature in features))
    if not chosen:
        raise InvalidInputError("no feature to store", next_step=f"name at least one of {', '.join(MEASURED_FEATURES)}")
    stored = options.get("dtype", "auto")
    mapping = options.get("map")
    on_error = options.get("on_error", "stop")
    if on_error not in ("stop", "skip"):
        raise InvalidInputError(f"{on_error!r} is no way to meet an error", next_step="use 'stop' or 'skip'")
    limit = options.get("limit")
    if limit is not None and limit < 1:
        raise InvalidInputError(f"a limit of {limit} reads nothing", next_step="give a limit of at least 1")
    named = (sources,) if isinstance(sources, str) else tuple(sources)
    score_with = options.get("score_with")
    keep_features = options.get("keep_features")
    if keep_features not in (None, "all", "none"):
        raise InvalidInputError(f"{keep_features!r} is no choice of what to keep", next_step="use 'all' or 'none'")
    return IngestRequest(
        sources=named,
        opened=tuple((find or open_sources)(named)),
        set_name=set_name,
        features=chosen,
        dtype=None if stored == "auto" else _choice(StoredDtype, stored, "dtype to store"),
        field_map=FieldMap.of(mapping) if mapping else None,
        id_field=options.get("id_field"),
        on_error=on_error,
        limit=limit,
        message=options.get("message", ""),
        rejects_path=options.get("rejects"),
        command=shlex.join(sys.argv),
        keep_features=keep_features,
        score_with=(score_with,) if isinstance(score_with, str) else None if score_with is None else tuple(score_with),
    )


def open_capture(
    model: str, request: IngestRequest, options: IngestOptions, *, longest_tokens: int | None = None
) -> CaptureSource:
    """Load the model and resolve what is to be measured.

    Parameters
    ----------
    model
        Folder or hub id.
    request
        From :func:`plan_request`.
    options
        As given.
    longest_tokens
        Where no maximum length is given: this one, or the model's own limit if that is less.
    """
    hook_point = _choice(HookPoint, options.get("hook", "mlp"), "hook point")
    span = _choice(Span, options.get("span", "all"), "span")
    span_edges = _choice(SpanEdges, options.get("span_edges", "content"), "kind of span edges")

    from nait_store.capture.replicas import ReplicatedSession
    from nait_store.capture.session import CaptureSession

    settings: dict[str, Any] = {
        "adapter": options.get("adapter"),
        "quantization": options.get("quantization"),
        "hook_point": hook_point,
        "hook_path": options.get("hook_path"),
        "layers": options.get("layers"),
        "features": request.features,
        "template": options.get("template", "auto"),
        "span": span,
        "span_edges": span_edges,
        "max_length_tokens": options.get("max_length"),
        "longest_tokens": longest_tokens,
        "compute_dtype": options.get("compute_dtype", "auto"),
        "device": options.get("device", "auto"),
        "device_map": options.get("device_map"),
        "max_memory": options.get("max_memory"),
        "token_budget": options.get("token_budget"),
        "trust_remote_code": options.get("trust_remote_code", False),
    }
    devices = options.get("devices")
    if devices is None:
        return CaptureSession.open(model, **settings)
    return ReplicatedSession.open(model, devices=devices, **settings)


def _choice(kind: type[E], value: str, what: str) -> E:
    names = [member.value for member in kind if kind is not Feature or member in MEASURED_FEATURES]
    if value not in names:
        raise InvalidInputError(
            f"{value!r} is not a {what}", next_step=f"{did_you_mean(value, names)} (of {', '.join(names)})"
        )
    return kind(value)
