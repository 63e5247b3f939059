"""Pictures drawn by matplotlib (the extra ``plots``): the same ones whatever the user's own style."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nait_store.errors import InvalidInputError, MissingExtraError

BLUE, ORANGE, GREY = "#2f81f7", "#d4762c", "#8c959f"
_DOTS_PER_INCH = 120
# What would differ from one day to the next, by format.
_METADATA = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def form_of(url: str) -> str:
    """Format that the ending of a file's name stands for: ``png``, ``svg`` or ``pdf``.

    Raises
    ------
    InvalidInputError
        It stands for none of them.
    """
    _, dot, ending = url.rsplit("/", 1)[-1].rpartition(".")
    if not dot or ending.lower() not in _METADATA:
        raise InvalidInputError(
            f"{url!r} does not end like a picture",
            next_step=f"use one of {', '.join(f'.{form}' for form in _METADATA)}",
        )
    return ending.lower()


def require_matplotlib(what: str, instead: str) -> None:
    """Refuse to draw where nothing can be drawn with: before long work, not after it.

    Parameters
    ----------
    what
        What needs it, for the message: ``"the pictures of a card need"``.
    instead
        What to do without: ``"leave them out with --no-pictures"``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"{what} matplotlib, which is not installed", next_step=f"pip install 'nait-store[plots]', or {instead}"
        ) from error


@contextmanager
def default_style() -> Iterator[None]:
    """Draw in matplotlib's default style, whatever the user's own is."""
    from matplotlib import rc_context, style

    with style.context("default"), rc_context({"svg.hashsalt": "nait-store"}):
        yield


def literally(text: str) -> str:
    """Text as it is: two dollars in it would be a formula."""
    return text.replace("$", r"\$")


def tidy(axes: Any) -> None:
    """Leave out the lines above and on the right of a diagram."""
    axes.spines[["top", "right"]].set_visible(False)


def picture_bytes(figure: Any, form: str = "png") -> bytes:
    """Return the file of a figure: the same figure gives the same bytes under one release of matplotlib."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=_DOTS_PER_INCH, metadata=_METADATA[form])
    return buffer.getvalue()
