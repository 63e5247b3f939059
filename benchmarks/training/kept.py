"""What a study keeps in its folder: losses, and how well scores found the targets' own sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.json_lines import read_json_lines, write_json_lines
from benchmarks.training.losses import Losses


class Aucs:
    """ROC-AUCs of a study, in memory and in a file.

    Parameters
    ----------
    path
        JSON Lines, one a seed, target and ranking. It is continued if it is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[tuple[int, str, str], float] = {}
        for line in read_json_lines(path) if path.exists() else ():
            self._found[line["seed"], line["target"], line["ranked_by"]] = line["auc"]

    def add(self, seed: int, found: Mapping[str, Mapping[str, float]]) -> None:
        """Keep those of a seed: target → ranked by → ROC-AUC."""
        for target, rankings in found.items():
            self._found |= {(seed, target, ranked_by): auc for ranked_by, auc in rankings.items()}
        write_json_lines(
            self._path,
            (
                {"seed": seed, "target": target, "ranked_by": ranked_by, "auc": auc}
                for (seed, target, ranked_by), auc in self._found.items()
            ),
        )

    def by_target(self) -> dict[str, dict[str, dict[int, float]]]:
        """Target → ranked by → seed → ROC-AUC."""
        groups: dict[str, dict[str, dict[int, float]]] = {}
        for (seed, target, ranked_by), auc in self._found.items():
            groups.setdefault(target, {}).setdefault(ranked_by, {})[seed] = auc
        return groups


@dataclass(frozen=True)
class Kept:
    """A study's folder.

    Attributes
    ----------
    losses, aucs
        Its findings.
    """

    losses: Losses
    aucs: Aucs

    @classmethod
    def of(cls, folder: Path, settings: Mapping[str, Any] | None = None) -> Kept:
        """Read a folder; with settings also a new one, or one that was kept with the same settings."""
        return cls(Losses(folder / "losses.jsonl", settings), Aucs(folder / "aucs.jsonl"))
