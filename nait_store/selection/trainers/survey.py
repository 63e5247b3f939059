"""Which layout holds the samples of a selection, and which samples it does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from nait_store.capture.conversations import FieldMap
from nait_store.errors import InvalidInputError
from nait_store.selection.ranked_records import RankedRecord
from nait_store.selection.trainers.dialogues import Dialogue, read_dialogue
from nait_store.selection.trainers.layouts import LAYOUTS, Columns, Layout, Trainer, misfit

_NAMED = 3


@dataclass(frozen=True)
class LeftOut:
    """A sample that a layout has no place for, and why."""

    sample_id: str
    reason: str


@dataclass
class _Fit:
    """How one layout fits."""

    columns: Columns = field(default_factory=Columns)
    left_out: list[LeftOut] = field(default_factory=list)


class Survey:
    """One reading of all records of a selection: what each layout in question would leave out.

    Parameters
    ----------
    records
        The samples.
    trainer
        Who is to read them.
    layouts
        Those in question, in order of preference.
    field_map
        The one that the records were ingested with.
    """

    def __init__(
        self, records: Iterable[RankedRecord], trainer: Trainer, layouts: Sequence[Layout], field_map: FieldMap | None
    ) -> None:
        self._trainer = trainer
        self._field_map = field_map
        self._fits = {layout: _Fit() for layout in layouts}
        self._n_samples = 0
        for ranked in records:
            self._n_samples += 1
            dialogue, reason = self._read(ranked)
            for layout, fit in self._fits.items():
                why = reason if dialogue is None else misfit(dialogue, layout, trainer)
                if why or dialogue is None:
                    fit.left_out.append(LeftOut(ranked.sample_id, why))
                else:
                    fit.columns = fit.columns.and_of(dialogue)

    def choose(self, *, skip: bool) -> Layout:
        """The first layout that leaves nothing out; with ``skip`` the first of those that leave out least.

        Raises
        ------
        InvalidInputError
            Every layout in question would leave something out, or with ``skip`` everything.
        """
        best = min(self._fits, key=lambda layout: len(self._fits[layout].left_out))
        left_out = self._fits[best].left_out
        if not left_out or (skip and len(left_out) < self._n_samples):
            return best
        named = "; ".join(f"{one.sample_id}: {one.reason}" for one in left_out[:_NAMED])
        more = f"; and {len(left_out) - _NAMED:,} more" if len(left_out) > _NAMED else ""
        others = [one for one in LAYOUTS[self._trainer] if one not in self._fits]
        steps = [f"--layout {' or '.join(others)} may hold them"] if others else []
        if len(left_out) < self._n_samples:
            steps.append("--on-error skip leaves them out")
        raise InvalidInputError(
            f"{len(left_out):,} of {self._n_samples:,} samples cannot be written as {best} for {self._trainer} without "
            f"a loss: {named}{more}",
            next_step="; ".join([*steps, "--to jsonl writes the records as they are"]),
        )

    def left_out(self, layout: Layout) -> Sequence[LeftOut]:
        """What a layout leaves out."""
        return self._fits[layout].left_out

    def columns(self, layout: Layout) -> Columns:
        """What the rows of a layout have in common."""
        return self._fits[layout].columns

    def dialogues(self, records: Iterable[RankedRecord], layout: Layout) -> Iterator[Dialogue]:
        """The dialogues that a layout holds, in the order of the records."""
        for ranked in records:
            dialogue, _ = self._read(ranked)
            if dialogue is not None and not misfit(dialogue, layout, self._trainer):
                yield dialogue

    def _read(self, ranked: RankedRecord) -> tuple[Dialogue | None, str]:
        try:
            return read_dialogue(ranked.record, "it", self._field_map), ""
        except InvalidInputError as error:
            return None, error.what.removeprefix("it: ")
