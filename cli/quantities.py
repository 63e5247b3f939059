"""Quantities in words: bytes, counts, durations, percentages."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(n_bytes: float) -> str:
    """``44 MB``, ``1.2 GB``: decimal units, two significant figures below ten."""
    value = float(n_bytes)
    unit = _UNITS[0]
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    digits = 1 if unit != "B" and value < 9.95 else 0
    return f"{value:,.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """``0.42 s``, ``12.3 s``, ``4:05``, ``2:03:11``."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def rate(per_second: float) -> str:
    """``152``, ``31.2k``, ``1.4M``."""
    for limit, suffix in ((999_500.0, "M"), (9_995.0, "k")):
        if per_second >= limit:
            return f"{per_second / (1e6 if suffix == 'M' else 1e3):.1f}{suffix}"
    return f"{per_second:.1f}" if per_second < 9.95 else f"{per_second:.0f}"


def count(n: int, noun: str) -> str:
    """``1 sample``, ``6,000 samples``."""
    return f"{n:,} {noun if n == 1 else noun + 's'}"


def numbers(values: tuple[int, ...]) -> str:
    """``0–5``, ``0, 2, 4``, ``none``: runs shortened."""
    if not values:
        return "none"
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
