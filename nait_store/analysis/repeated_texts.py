"""Samples that repeat another's text, whatever their ids and other fields."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nait_store.activations.set_version import SetVersion
from nait_store.selection.redundancy.text_duplicates import TextDuplicates
from nait_store.selection.redundancy.texts import SampleTexts
from nait_store.storage.location import Location

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession

_EXAMPLES = 3


@dataclass(frozen=True)
class RepeatedTexts:
    """How many samples repeat others.

    Attributes
    ----------
    n_samples
        All of them.
    n_texts
        Different texts among them, as ``select --drop-duplicates exact`` tells them apart.
    largest
        Most samples with one text.
    examples
        Ids of the first samples that have the most frequent text; empty where none repeats.
    """

    n_samples: int
    n_texts: int
    largest: int
    examples: tuple[str, ...]

    @property
    def n_repeats(self) -> int:
        """Samples that could go without a text being lost."""
        return self.n_samples - self.n_texts


def count_repeated_texts(location: Location, session: QuerySession, version: SetVersion) -> RepeatedTexts:
    """Compare the texts of all samples by their digests; records are read piece by piece.

    Parameters
    ----------
    location
        The store's root.
    session
        Of the store.
    version
        With at least one sample.

    Raises
    ------
    InvalidInputError
        A sample has no text.
    """
    ids = version.samples(["sample_id"]).column("sample_id")
    repeats = TextDuplicates(SampleTexts(location, session, version), None).examine(np.arange(len(ids)), ids)
    n_repeats = Counter(one.of for one in repeats)
    examples: tuple[str, ...] = ()
    largest = 1
    if n_repeats:
        first, count = max(n_repeats.items(), key=lambda item: (item[1], -item[0]))
        places = [first, *sorted(one.position for one in repeats if one.of == first)]
        examples, largest = tuple(ids[place].as_py() for place in places[:_EXAMPLES]), count + 1
    return RepeatedTexts(len(ids), len(ids) - len(repeats), largest, examples)
