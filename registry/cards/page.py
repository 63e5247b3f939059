"""CARD.md: a profile's quality card as a page, for a folder, a repository or a hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nait_store.markdown import escaped, table_of
from nait_store.registry.cards.findings import decimals, findings
from nait_store.registry.quality import card_warnings
from nait_store.schemas.profile import ProfileRecord
from nait_store.schemas.quality_card import QualityCard

PAGE_FILE = "CARD.md"


@dataclass(frozen=True)
class CardSample:
    """An in-domain sample on a card.

    Attributes
    ----------
    sample_id, score
        Which one, and its score under the profile.
    text
        The beginning of its texts, on one line.
    """

    sample_id: str
    score: float
    text: str


@dataclass(frozen=True)
class ProfileCard:
    """What is known of a profile's quality.

    Attributes
    ----------
    reference, record
        The version, ``math@3``, and its ``profile.json``.
    quality
        What was measured; None where the build measured nothing.
    top, bottom
        In-domain samples with the highest scores, best first, and with the lowest, lowest first.
    unknown
        Why there are no samples; empty where there are.
    """

    reference: str
    record: ProfileRecord
    quality: QualityCard | None
    top: tuple[CardSample, ...] = ()
    bottom: tuple[CardSample, ...] = ()
    unknown: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know before trusting the profile, one sentence each; those of the build among them."""
        measured = () if self.quality is None else card_warnings(self.quality, self.record.recipe)
        return tuple(dict.fromkeys((*self.record.warnings, *measured)))

    def markdown(self, pictures: Sequence[tuple[str, str]] = ()) -> str:
        """Return the page.

        Parameters
        ----------
        pictures
            File name and description of the pictures to show.
        """
        record = self.record
        parts = [f"# {escaped(self.reference)}"]
        if record.card:
            parts.append(escaped(record.card))
        parts += [f"> **Warning:** {escaped(warning)}" for warning in self.warnings]
        parts.append(_list(self._origin()))
        parts.append("## Quality")
        if self.quality is None:
            parts.append("Nothing was measured when this profile was built.")
        else:
            parts.append(_list(findings(self.quality)))
        parts += [f"![{escaped(description)}]({file})" for file, description in pictures]
        if self.quality is not None and self.quality.learning_curve:
            parts += ["## How many samples it takes", self._curve(self.quality)]
        if record.statistics:
            parts += ["## Layers", self._layers()]
        if self.top or self.bottom:
            parts += ["## In-domain samples with the highest scores", _samples(self.top)]
            parts += ["## In-domain samples with the lowest scores", _samples(self.bottom)]
        elif self.unknown:
            parts.append(f"In-domain samples are not shown: {escaped(self.unknown)}.")
        return "\n\n".join(parts) + "\n"

    def _origin(self) -> list[tuple[str, str]]:
        record = self.record
        background = record.background
        lines = [
            ("recipe", record.recipe.in_words),
            ("made from", record.made_from),
            ("against", "" if background is None else background.in_words),
            ("model", record.model or ""),
            ("hook point", record.identity.hook_point.value),
            ("directions", f"{len(record.layers)} of {record.n_neurons:,} neurons"),
            ("built", f"{record.provenance.created_at:%Y-%m-%d} by {record.provenance.author}"),
        ]
        return [(topic, text) for topic, text in lines if text]

    def _curve(self, card: QualityCard) -> str:
        rows = [
            (f"{point.n_samples:,}", decimals(point.profile_cosine), decimals(point.draws_cosine))
            for point in card.learning_curve
        ]
        columns = ("samples", "cosine to the profile", "cosine between two draws of so many")
        return table_of(columns, rows, range(3))

    def _layers(self) -> str:
        measured = {} if self.quality is None else {layer.layer: layer for layer in self.quality.layers}
        rows = []
        for statistics in self.record.statistics:
            layer = measured.get(statistics.layer)
            ratio = statistics.explained_variance_ratio
            rows.append(
                (
                    str(statistics.layer),
                    "" if ratio is None else f"{ratio:.3f}",
                    f"{statistics.sign_margin:.2f}",
                    "" if layer is None else decimals(layer.halves_cosine),
                    "" if layer is None else decimals(layer.auc),
                )
            )
        columns = ("layer", "explained variance", "sign margin", "halves agree", "area under the curve")
        filled = [i for i in range(len(columns)) if any(row[i] for row in rows)]
        return table_of([columns[i] for i in filled], [[row[i] for i in filled] for row in rows], range(len(filled)))


def _list(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- **{topic}**: {escaped(text)}" for topic, text in lines)


def _samples(samples: Sequence[CardSample]) -> str:
    rows = [(f"{sample.score:.4g}", escaped(sample.sample_id), escaped(sample.text)) for sample in samples]
    return table_of(("score", "sample", "text"), rows, (0,))
