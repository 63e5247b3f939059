"""README.md of a registry on the hub: what is published there, for whoever comes by with a browser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nait_store.markdown import escaped, table_of
from nait_store.registry.cards.findings import findings
from nait_store.registry.cards.page import ProfileCard
from nait_store.schemas.sharing import Publication, ReferencePolicy

_BEGIN = "<!-- nait-store: what follows is written anew by every push -->"
_END = "<!-- nait-store: end -->"
_SECTION = re.compile(rf"^{re.escape(_BEGIN)}[^\S\n]*$.*?^{re.escape(_END)}[^\S\n]*$", re.MULTILINE | re.DOTALL)
_FRONT_MATTER = """---
license: unknown
tags:
- nait-store
- neuron-activations
viewer: false
---
"""
_TITLE = "\n# Activation profiles\n\n"
_TRAVELLED = {
    ReferencePolicy.FULL: "the records themselves",
    ReferencePolicy.HASHES: "hashes",
    ReferencePolicy.NONE: "nothing",
}


@dataclass(frozen=True)
class PublishedCard:
    """A profile on the page.

    Attributes
    ----------
    publication
        Its latest version.
    n_versions
        How many there are.
    card
        What is known of its quality; None where that is not shown.
    """

    publication: Publication
    n_versions: int
    card: ProfileCard | None


@dataclass(frozen=True)
class HubPage:
    """The page.

    Attributes
    ----------
    url
        The registry.
    profiles
        What it holds, by name.
    """

    url: str
    profiles: Sequence[PublishedCard]

    def upon(self, present: bytes) -> bytes:
        """Return the page with this content; what people wrote around our section, and their front matter, stays.

        Parameters
        ----------
        present
            The page as it is; empty where there is none.
        """
        text = present.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
        section = f"{_BEGIN}\n\n{self.markdown()}\n{_END}"
        if not text.strip():
            text = f"{_FRONT_MATTER}{_TITLE}{section}\n"
        elif _SECTION.search(text):
            text = _SECTION.sub(lambda _: section, text, count=1)
        else:
            text = f"{text.rstrip()}\n\n{section}\n"
        if not text.startswith("---\n"):
            text = f"{_FRONT_MATTER}\n{text}"
        return text.encode("utf-8", "surrogateescape")

    def markdown(self) -> str:
        """Return what is between the marks."""
        parts = [
            "Profiles for choosing instruction-tuning data by neuron activations, published with nait-store. "
            "They apply to samples that were captured with the same model. Everything is checked when it is pulled.",
            f"```sh\npip install 'nait-store[hub]'\nnait-store remote show {self.url}\n```",
            self._table(),
        ]
        parts += [_section(one.publication, one.card, self.url) for one in self.profiles if one.card is not None]
        return "\n\n".join(parts) + "\n"

    def _table(self) -> str:
        rows = []
        for one in self.profiles:
            by = one.publication.provenance
            model = "" if one.card is None else one.card.record.model or ""
            rows.append(
                (
                    escaped(one.publication.spelled),
                    str(one.n_versions),
                    escaped(model),
                    escaped(one.publication.message),
                    f"{by.created_at:%Y-%m-%d}",
                    escaped(by.author),
                )
            )
        return table_of(("latest", "versions", "model", "message", "published", "by"), rows, (1,))


def _section(publication: Publication, card: ProfileCard, url: str) -> str:
    """The card of a profile. Every text of others stands within a line that begins with one of ours."""
    record = card.record
    parts = [f"## {escaped(publication.spelled)}", f"```sh\nnait-store pull {publication.spelled} {url}\n```"]
    parts += [f"> **Warning:** {escaped(warning)}" for warning in card.warnings]
    facts = [
        ("about", record.card or ""),
        ("message", publication.message),
        ("made from", record.made_from),
        ("recipe", record.recipe.in_words),
        ("model", record.model or ""),
        ("directions", f"{len(record.layers)} of {record.n_neurons:,} neurons"),
        ("of its in-domain samples", f"{_TRAVELLED[publication.reference.policy]} can be had"),
    ]
    measured = [("quality", "not measured")] if card.quality is None else findings(card.quality)
    lines = [f"- **{topic}**: {escaped(text)}" for topic, text in [*facts, *measured] if text]
    parts.append("\n".join(lines))
    return "\n\n".join(parts)
