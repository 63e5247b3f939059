"""How to make a version again: its inputs, and one command after the other."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from nait_store.refs import Reference

_END = "END-OF-IDS"


@dataclass(frozen=True)
class Input:
    """A file that has to be there.

    Attributes
    ----------
    uri
        Path or URL where it is looked for.
    recorded_uri
        As the ingest was given it; another one where the caller said so.
    sha256, size_bytes
        What it must be; None where that was not recorded.
    """

    uri: str
    recorded_uri: str
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes
    ----------
    arguments
        Of ``nait-store``, without ``--store``.
    makes
        The version that it makes again; None for one that only prepares.
    here
        What that version is called in the new store.
    lines
        Standard input, line by line; empty for none.
    notes
        What is not recorded of it, or differs on purpose.
    """

    arguments: tuple[str, ...]
    makes: Reference | None
    here: Reference | None
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What to type in a shell, standard input included."""
        command = shlex.join(("nait-store", *self.arguments))
        if not self.lines:
            return command
        return "\n".join([f"{command} << '{_END}'", *self.lines, _END])


@dataclass(frozen=True)
class Counterpart:
    """A version of the store, and what is to be compared with it in the new one."""

    original: Reference
    here: Reference


@dataclass(frozen=True)
class Steps:
    """All that it takes to make a version again in an empty store.

    Attributes
    ----------
    root
        The version.
    inputs, models
        Files that are read, and models that are loaded: path or hub id → fingerprint.
    steps
        In their order.
    counterparts
        Every version that comes about, with its name in the new store.
    obstacles
        Why it cannot be made again, or not from this; empty where nothing stands in the way.
    """

    root: Reference
    inputs: tuple[Input, ...]
    models: dict[str, str]
    steps: tuple[Step, ...]
    counterparts: tuple[Counterpart, ...]
    obstacles: tuple[str, ...] = ()

    def script(self) -> str:
        """A shell script that makes it again in the store that ``NAIT_STORE`` names, which must be empty."""
        lines = [f"# {self.root.qualified}, made again in an empty store: set NAIT_STORE to a new folder first"]
        lines += [_comment(f"it cannot be made again from this alone: {one}") for one in self.obstacles]
        for one in self.inputs:
            digest = f"SHA-256 {one.sha256}" if one.sha256 else "its digest was not recorded"
            lines.append(_comment(f"reads {one.uri}: {digest}"))
        lines += [_comment(f"loads {name}: fingerprint {known}") for name, known in self.models.items()]
        lines += ["set -e", "nait-store init"]
        for step in self.steps:
            lines.append("")
            if step.makes is not None and step.here is not None:
                here = "" if step.here == step.makes else f", which is {step.here} here"
                lines.append(_comment(f"{step.makes.qualified}{here}"))
            lines += [_comment(note) for note in step.notes]
            lines.append(step.command)
        return "\n".join(lines) + "\n"


def can_be_lines(ids: list[str]) -> bool:
    """Whether ids can be handed to a command one a line, in a shell too."""
    return all(one.isprintable() and one == one.strip() and one not in ("", _END) for one in ids)


def _comment(text: str) -> str:
    return "# " + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
