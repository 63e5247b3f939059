"""What a model's configuration says about positions: windows, and encodings that depend on the sequence's length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nait_store.capture.rendering import default_max_length_tokens
from nait_store.errors import InvalidInputError

WINDOW_KEYS = ("sliding_window", "attention_chunk_size", "local_attention", "window_size", "attn_window_size")


@dataclass(frozen=True)
class PositionTraits:
    """How length matters beyond causality.

    Attributes
    ----------
    windows
        Lengths of sliding windows and attention chunks, ascending.
    length_boundaries
        Lengths at which the position encoding of *all* tokens of a pass changes (longrope): samples up to such a
        length must not share a pass with longer ones, or their numbers change.
    dynamic
        Whether the encoding adapts to every length beyond the trained one, and keeps it for what follows (dynamic
        RoPE; a short sample changes by 23 % beside a long one): such lengths are refused.
    """

    windows: tuple[int, ...]
    length_boundaries: tuple[int, ...]
    dynamic: bool


def position_traits(config: Any) -> PositionTraits:
    """Read the traits from a text decoder's configuration."""
    windows = {getattr(config, key, None) for key in WINDOW_KEYS}
    ropes = list(_rope_parameters(config))
    boundaries = set()
    for rope in ropes:
        if rope.get("rope_type", rope.get("type")) == "longrope":
            trained = rope.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", None
            )
            boundaries.add(trained)
    return PositionTraits(
        windows=tuple(sorted(window for window in windows if isinstance(window, int) and window > 0)),
        length_boundaries=tuple(sorted(length for length in boundaries if isinstance(length, int))),
        dynamic=any("dynamic" in str(rope.get("rope_type", rope.get("type", ""))) for rope in ropes),
    )


def length_limit(max_length_tokens: int | None, max_positions: int | None, traits: PositionTraits) -> int:
    """Return the truncation limit, checking the user's own against the model's.

    Parameters
    ----------
    max_length_tokens
        What the user asked for, if anything.
    max_positions
        Longest sequence that the model is made for, if it says.
    traits
        Of its configuration.

    Raises
    ------
    InvalidInputError
        More than the model has positions for.
    """
    if max_length_tokens is None:
        return default_max_length_tokens(max_positions)
    if max_positions is not None and max_length_tokens > max_positions:
        why = "; beyond that its RoPE changes from sample to sample" if traits.dynamic else ""
        raise InvalidInputError(
            f"a maximum length of {max_length_tokens:,} tokens is more than the model's "
            f"{max_positions:,} positions{why}",
            next_step=f"give --max-length {max_positions} or less",
        )
    return max_length_tokens


def _rope_parameters(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the RoPE parameters: one set, or one for each type of layer."""
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(parameters, dict):
        return
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    yield from nested or [parameters]
