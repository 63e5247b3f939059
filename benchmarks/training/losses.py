"""Held-out losses of a study, kept as JSON Lines, so that a study can be stopped and continued, and their intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.json_lines import read_json_lines


@dataclass(frozen=True)
class Question:
    """What there is one loss of.

    Attributes
    ----------
    seed
        Of weights, order, halves and chance.
    target, pool, chosen
        What was asked for, out of what, and by what records were chosen.
    asked
        The capability whose unseen answers were asked for; that of ``target``, unless that is several.
    """

    seed: int
    target: str
    pool: str
    asked: str
    chosen: str


@dataclass(frozen=True)
class Loss:
    """What one model said about one capability.

    Attributes
    ----------
    question
        What was asked of which model.
    n_records, n_answer_tokens
        What the model was fine-tuned on, and how many of its tokens were learnt; 0 for the base model.
    n_of_asked
        How many of the records come from the source of the capability that was asked for.
    nats_per_token
        The loss.
    """

    question: Question
    n_records: int
    n_answer_tokens: int
    n_of_asked: int
    nats_per_token: float

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> Loss:
        """The loss of a flat line, as :meth:`line` makes it."""
        names = [field.name for field in fields(Question)]
        rest = {name: value for name, value in line.items() if name not in names}
        return cls(Question(**{name: line[name] for name in names}), **rest)

    def line(self) -> dict[str, Any]:
        """Every field beside the others."""
        values = asdict(self)
        return {**values.pop("question"), **values}


class Losses:
    """Losses of one study, in memory and, where a file is named, on disk as soon as they are known.

    Parameters
    ----------
    path
        JSON Lines: the settings, then a loss a line. It is continued if it is there.
    settings
        What a study must have in common with one that it continues; None takes those of the file.

    Raises
    ------
    SystemExit
        The file is of a study with other settings, or is none.
    """

    def __init__(self, path: Path | None = None, settings: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._losses: dict[Question, Loss] = {}
        if path is not None and path.exists() and path.stat().st_size:
            self._read(path, settings)
        elif settings is None:
            raise SystemExit(f"{path} holds no losses: name the file that an earlier run kept")
        else:
            self.settings = dict(settings)
            self._append(self.settings)

    def _read(self, path: Path, settings: Mapping[str, Any] | None) -> None:
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):  # killed in the middle of a line
            path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        self.settings, *rest = read_json_lines(path)
        wanted = self.settings if settings is None else settings
        names = sorted(self.settings.keys() | wanted)
        different = [name for name in names if self.settings.get(name) != wanted.get(name)]
        if different:
            raise SystemExit(
                f"{path} keeps losses of a study with another {', '.join(different)}: "
                "repeat that study's arguments, or name another folder"
            )
        for line in rest:
            loss = Loss.from_line(line)
            self._losses[loss.question] = loss

    def __iter__(self) -> Iterator[Loss]:
        """In the order in which they became known."""
        return iter(self._losses.values())

    def __contains__(self, question: object) -> bool:
        """Whether the answer to a question is known."""
        return question in self._losses

    def add(self, loss: Loss) -> None:
        """Keep a loss."""
        self._losses[loss.question] = loss
        self._append(loss.line())

    def _append(self, line: Mapping[str, Any]) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def groups(self) -> dict[tuple[str, str, str], dict[str, dict[int, Loss]]]:
        """Target, pool and asked → chosen → seed → loss."""
        found: dict[tuple[str, str, str], dict[str, dict[int, Loss]]] = {}
        for loss in self:
            asked = loss.question
            group = found.setdefault((asked.target, asked.pool, asked.asked), {})
            group.setdefault(asked.chosen, {})[asked.seed] = loss
        return found


@dataclass(frozen=True)
class Interval:
    """A mean with Student's 95 % interval.

    Attributes
    ----------
    mean, half_width
        In the unit of the values; the half width is infinite for one value.
    n
        How many values.
    """

    mean: float
    half_width: float
    n: int

    @classmethod
    def of(cls, values: np.ndarray) -> Interval:
        """Of [n] values."""
        from scipy import stats

        n = len(values)
        half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("inf")
        return cls(float(values.mean()), half, n)

    def __str__(self) -> str:
        """Mean and half width, as in ``6.243 ± 0.051``; of one value only that."""
        return f"{self.mean:.3f}{self._width}"

    @property
    def signed(self) -> str:
        """As of a difference: ``-0.382 ± 0.041``."""
        return f"{self.mean:+.3f}{self._width}"

    @property
    def verdict(self) -> str:
        """As of a difference of losses: ``-0.382 ± 0.041: better``."""
        word = "better" if self.mean < -self.half_width else "worse" if self.mean > self.half_width else "unclear"
        return f"{self.signed}: {word}"

    @property
    def _width(self) -> str:
        return f" ± {self.half_width:.3f}" if self.n > 1 else ""


def difference(losses: Mapping[int, Loss], reference: Mapping[int, Loss]) -> Interval | None:
    """Losses minus those of the same seeds of a reference; None where there is no seed that both have."""
    both = sorted(losses.keys() & reference.keys())
    if not both:
        return None
    return Interval.of(np.array([losses[seed].nats_per_token - reference[seed].nats_per_token for seed in both]))
