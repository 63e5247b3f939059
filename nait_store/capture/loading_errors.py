"""What transformers says and raises while a model is loaded: silenced, and put into words that say what to do."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from nait_store.errors import InvalidInputError, NaitStoreError, NotFoundError, StorageError

_REMOTE_CODE_STEP = (
    "if you trust its authors, pass --trust-remote-code: Python files that come with the checkpoint will then run on "
    "this machine with your rights"
)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from logging, warning and drawing bars, unless this package logs at debug level."""
    from transformers.utils import logging as transformers_logging

    if logging.getLogger("nait_store").isEnabledFor(logging.DEBUG):
        yield
        return
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def loading_errors(source: str) -> Iterator[None]:
    """Turn what transformers and its like raise into errors that say what to do.

    Parameters
    ----------
    source
        Folder or hub id of what is loaded, for the messages.
    """
    from safetensors import SafetensorError

    is_folder = Path(source).expanduser().is_dir()
    try:
        yield
    except NaitStoreError:
        raise
    except SafetensorError as error:
        raise InvalidInputError(
            f"the weights of {source} are damaged: {first_line(error)}", next_step="download the model again"
        ) from error
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        text, cause = str(error), first_line(error)
        if "trust_remote_code" in text:
            raise InvalidInputError(
                f"{source} needs code of its own, which does not run unless you allow it", next_step=_REMOTE_CODE_STEP
            ) from error
        if "does not recognize this architecture" in text or "Unrecognized model" in text:
            raise InvalidInputError(
                f"{source} is of an architecture that the installed transformers does not know: {cause}",
                next_step="upgrade (pip install --upgrade transformers) or choose another model",
            ) from error
        if "size mismatch" in text or "ignore_mismatched_sizes" in text:
            raise InvalidInputError(
                f"the weights of {source} do not have the shapes that its config.json says",
                next_step="check that config.json and weights belong together, or download the model again",
            ) from error
        if not is_folder and isinstance(error, OSError):
            raise NotFoundError(
                f"the model {source!r} is neither a folder here nor a model on the hub that can be reached: {cause}",
                next_step="check the spelling, the network and (if it is gated) your access, or give a folder",
            ) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(
                f"could not read {source}: {cause}", next_step="check the disk and permissions"
            ) from error
        raise InvalidInputError(
            f"{source} cannot be loaded: {type(error).__name__}: {cause}",
            next_step="run again with --debug to see what transformers says",
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, at most 300 characters; its class where it has none."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0][:300]
