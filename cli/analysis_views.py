"""How analyses look to people: their findings, one a line, with what to do next; and their pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from nait_store.cli import query_output
from nait_store.cli.tables import cell

if TYPE_CHECKING:
    from nait_store.analysis.findings import Finding
    from nait_store.selection.export import Target

CountedColumn = Annotated[str, typer.Option(metavar="COLUMN", help="Column of the samples whose values are counted.")]
Picture = Annotated[
    str | None, typer.Option(metavar="FILE", help="Draw it there: .png, .svg or .pdf.", show_default=False)
]


@dataclass(frozen=True)
class PictureFile:
    """Where a picture goes, and in which format."""

    target: Target
    form: str

    @property
    def url(self) -> str:
        """Of the file."""
        return self.target.url

    def write(self, data: bytes) -> None:
        """Write it; the file appears whole or not at all."""
        with self.target.open() as stream:
            stream.write(data)


def open_picture(picture: str | None, *, overwrite: bool) -> PictureFile | None:
    """Check before anything is computed whether, where and in which format a picture can be drawn.

    Raises
    ------
    InvalidInputError, AlreadyExistsError, MissingExtraError
        An ending that stands for no format; a file that exists; matplotlib is not installed.
    """
    from nait_store.pictures import form_of, require_matplotlib

    target = query_output.open_target(picture, overwrite=overwrite)
    if target is None:
        return None
    form = form_of(target.url)
    require_matplotlib("--picture needs", "leave it out")
    return PictureFile(target, form)


def findings_view(findings: Sequence[Finding]) -> Iterator[str]:
    """Verdict, topic and profile of each finding, then its text, and the next step on a line of its own."""
    heads = [(finding.verdict.value, finding.topic, cell(finding.of)) for finding in findings]
    widths = [max((len(head[i]) for head in heads), default=0) for i in range(3)]
    for finding, head in zip(findings, heads, strict=True):
        front = "  ".join(text.ljust(width) for text, width in zip(head, widths, strict=True) if width)
        yield f"{front}  {cell(finding.text)}"
        if finding.next_step:
            yield f"{' ' * len(front)}  → {cell(finding.next_step)}"


def percent(share: float | None) -> str | None:
    """``12.3 %`` of 0.123."""
    return None if share is None else f"{100 * share:.1f} %"
