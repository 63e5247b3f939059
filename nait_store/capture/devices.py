"""Which devices of this machine a model is copied to, each to work on batches of its own."""

from __future__ import annotations

from collections.abc import Sequence

from nait_store.errors import InvalidInputError

ALL = "all"


def choose_devices(devices: str | Sequence[str]) -> tuple[str, ...]:
    """Name the devices that a user asked for.

    Parameters
    ----------
    devices
        ``all`` (every CUDA device, or the CPU where there is none), or names: a sequence, or text with commas. The CPU
        may be named several times, for machines with several sockets.

    Returns
    -------
    tuple of str
        At least one, as torch names them.

    Raises
    ------
    InvalidInputError
        No device, one that torch does not know, or a GPU that is named twice.
    """
    import torch

    named = devices.split(",") if isinstance(devices, str) else list(devices)
    names = [name.strip() for name in named if name.strip()]
    if names == [ALL]:
        return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count())) or ("cpu",)
    if not names or ALL in names:
        raise InvalidInputError(
            "'all' stands for every device, so it stands alone" if names else "no device is named",
            next_step="give --devices all, or devices separated by commas, e.g. cuda:0,cuda:1",
        )
    chosen = [_named(name) for name in names]
    twice = sorted({name for name in chosen if name != "cpu" and chosen.count(name) > 1})
    if twice:
        raise InvalidInputError(
            f"{', '.join(twice)} is named twice: a second copy of the model there would only take memory",
            next_step="name each GPU once",
        )
    return tuple(chosen)


def _named(name: str) -> str:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidInputError(
            f"{name!r} is not a device", next_step="name devices as torch does: cpu, cuda:0, cuda:1"
        ) from error
    return f"{device.type}:{device.index or 0}" if device.type == "cuda" else str(device)
