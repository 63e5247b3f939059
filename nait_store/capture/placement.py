"""Where a model's parts lie: on one device, or spread over several and offloaded by accelerate.

accelerate hangs hooks on the modules: each moves its inputs to the device that it runs on, and fetches weights that are
offloaded to the CPU or the disk for the time of its forward pass. So the decoder runs as if it were in one place; what
is left to us is to give the inputs to the device that the embedding runs on, and to reduce where the activations are.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nait_store.errors import InvalidInputError, MissingExtraError, did_you_mean

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
DeviceMap = str | Mapping[str, str | int]


@dataclass(frozen=True)
class Placement:
    """How accelerate is to spread a model.

    Attributes
    ----------
    device_map
        One of :data:`DEVICE_MAPS`, or module path → device (``0``, ``cuda:1``, ``cpu``, ``disk``).
    max_memory
        Device → the memory that the weights may take there (``20GiB``, or bytes); all that is free by default.
    """

    device_map: str | dict[str, str | int]
    max_memory: dict[str | int, str | int] | None = None

    def loading_options(self) -> dict[str, Any]:
        """Return what ``from_pretrained`` takes.

        What cannot be read from the checkpoint in place (other dtypes, ``.bin`` files) is offloaded to a temporary
        folder, under ``TMPDIR``, that goes when the interpreter ends.
        """
        options: dict[str, Any] = {"device_map": self.device_map, "offload_folder": _offload_folder()}
        if self.max_memory is not None:
            options["max_memory"] = self.max_memory
        return options


@functools.cache
def _offload_folder() -> str:
    folder = tempfile.mkdtemp(prefix="nait-store-offload-")
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: str, made_by: int) -> None:
    if os.getpid() == made_by:  # and not at the end of a process that was forked
        shutil.rmtree(folder, ignore_errors=True)


def require_accelerate(what: str) -> None:
    """Raise MissingExtraError where accelerate, which ``what`` needs, is not installed."""
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError(
            f"{what} needs accelerate, which is not installed", next_step="pip install 'nait-store[accelerate]'"
        )


def plan_placement(
    device_map: DeviceMap | None, max_memory: Mapping[str, str | int] | None, device: str
) -> Placement | None:
    """Check what a user says about placement.

    Parameters
    ----------
    device_map
        One of :data:`DEVICE_MAPS`, a mapping, or the path of a JSON file that holds one; None for one device.
    max_memory
        Device → limit.
    device
        ``auto``, or the one device that was asked for, which contradicts a map.

    Returns
    -------
    Placement or None
        None where the model goes to one device.

    Raises
    ------
    InvalidInputError
        No such map, an unreadable file, limits without a map, or both a map and a device.
    MissingExtraError
        accelerate is not installed.
    """
    if device_map is None:
        if max_memory:
            raise InvalidInputError(
                "--max-memory limits what a device map places, and there is none", next_step="add --device-map auto"
            )
        return None
    if device != "auto":
        raise InvalidInputError(
            f"the model cannot be spread by a device map and lie on {device} alone",
            next_step="leave out --device or --device-map",
        )
    chosen = device_map if isinstance(device_map, str) else dict(device_map)
    if isinstance(chosen, str) and chosen not in DEVICE_MAPS:
        chosen = _read_map(chosen)
    require_accelerate("spreading a model over devices")
    limits = None
    if max_memory is not None:
        limits = {int(name) if name.isdigit() else name: limit for name, limit in max_memory.items()}
    return Placement(chosen, limits)


def _read_map(path_text: str) -> dict[str, str | int]:
    path = Path(path_text).expanduser()
    if not path.is_file():
        raise InvalidInputError(
            f"{path_text!r} is neither a kind of device map nor a file",
            next_step=f"{did_you_mean(path_text, DEVICE_MAPS)} Or give a JSON file of module paths and devices",
        )
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise InvalidInputError(f"{path} is not valid JSON: {error}", next_step="correct the device map") from error
    if not isinstance(found, dict) or not all(isinstance(device, str | int) for device in found.values()):
        raise InvalidInputError(
            f"{path} is not a JSON object of module paths and devices",
            next_step='write for example {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": "cpu"}',
        )
    return found


def execution_device(module: Any) -> str:
    """Return the device that a module runs on, wherever its weights rest in the meantime."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        device = getattr(one, "execution_device", None)
        if device is not None:
            return _device_name(device)
    parameter = next(module.parameters(), None)
    return "cpu" if parameter is None else str(parameter.device)


def is_offloaded(module: Any) -> bool:
    """Whether some of a module's weights are elsewhere while it does not run."""
    return any(parameter.device.type == "meta" for parameter in module.parameters())


def places(model: Any, input_device: str) -> str:
    """Name the devices that a model is spread over, ``cuda:0, cuda:1, disk``; its one device where it is not."""
    spread = getattr(model, "hf_device_map", None) or {}
    names = dict.fromkeys(_device_name(device) for device in spread.values())
    return ", ".join(names) or input_device


def _device_name(device: Any) -> str:
    return f"cuda:{device}" if isinstance(device, int) else str(device)
