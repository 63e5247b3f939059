"""Making a version again in a new store with the recorded commands, and comparing the outcome."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nait_store.errors import AlreadyExistsError, InvalidInputError, NaitStoreError
from nait_store.store.lineage.steps import Input, Step, Steps

if TYPE_CHECKING:
    from nait_store.store.facade import Store
    from nait_store.store.ranking_checks import Check

Execute = Callable[[Sequence[str], str], None]
"""Runs ``nait-store`` with these arguments and this standard input; raises a NaitStoreError where it fails."""

Announce = Callable[[Step], None]


@dataclass(frozen=True)
class ReproductionReport:
    """What became of making a version again.

    Attributes
    ----------
    reference
        The version.
    folder
        The store in which it was made again; None where that was let go of, or nothing was run.
    n_commands
        How many commands were run; 0 where the inputs are not the recorded ones.
    checks
        Everything that was compared.
    """

    reference: str
    folder: str | None
    n_commands: int
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is the same, numbers within the tolerance."""
        return bool(self.checks) and all(check.ok for check in self.checks)


@dataclass(frozen=True)
class Reproduction:
    """How to make a version again; made by ``store.reproduce(ref)``.

    Attributes
    ----------
    steps
        Inputs and commands; ``steps.script()`` is a shell script.
    store
        Where the version is.
    """

    steps: Steps
    store: Store

    def script(self) -> str:
        """The commands as a shell script, with what they need and what is not recorded as comments."""
        return self.steps.script()

    def run(
        self,
        folder: str | None = None,
        *,
        tolerance: float | None = None,
        trust_remote_code: bool = False,
        execute: Execute | None = None,
        announce: Announce | None = None,
    ) -> ReproductionReport:
        """Run the commands in a new store, and compare what they make with what is there.

        Parameters
        ----------
        folder
            Of the new store, which must not exist or be empty; a temporary one, deleted afterwards, if omitted.
        tolerance
            Largest relative error of a sample's vector in a layer, see
            :class:`~nait_store.store.lineage.comparison.Comparison`; by the dtypes if omitted.
        trust_remote_code
            Whether models may bring code of their own. Never taken from the records: they may be somebody else's.
        execute
            Runs a command; a process for each if omitted.
        announce
            Hears of each command before it is run.

        Returns
        -------
        ReproductionReport
            ``.ok`` is the verdict. Where an input is not what it was nothing is run.

        Raises
        ------
        InvalidInputError
            The records do not suffice; the message says what is missing.
        AlreadyExistsError
            There is something in the folder.
        NotFoundError
            An input is not where it was.
        NaitStoreError
            A command failed; as it said.
        """
        from nait_store.store.lineage.comparison import Comparison

        steps = self.steps
        if steps.obstacles:
            raise InvalidInputError(
                f"{steps.root.qualified} cannot be made again: {'; '.join(steps.obstacles)}",
                next_step="'nait-store reproduce' without --run prints the commands that are known",
            )
        if tolerance is not None and not 0 <= tolerance < 1:
            raise InvalidInputError(f"a tolerance of {tolerance} is none", next_step="give one from 0 to 1, say 0.01")
        checks = [_check_input(one) for one in steps.inputs]
        if not all(check.ok for check in checks):
            return ReproductionReport(steps.root.qualified, None, 0, tuple(checks))
        with _new_folder(folder) as place:
            made = self._made_again(place, execute or run_in_a_process, announce, trust_remote_code)
            comparison = Comparison(self.store, made, tolerance)
            for pair in steps.counterparts:
                checks += comparison.checks(pair)
        return ReproductionReport(steps.root.qualified, folder, len(steps.steps), tuple(checks))

    def _made_again(self, place: str, execute: Execute, announce: Announce | None, trust_remote_code: bool) -> Store:
        from nait_store.store.facade import Store

        Store.open(place, create=True)
        for step in self.steps.steps:
            if announce is not None:
                announce(step)
            arguments = list(step.arguments)
            if trust_remote_code and arguments[0] == "ingest":
                arguments.insert(1, "--trust-remote-code")
            execute(["--store", place, "--quiet", *arguments], "".join(f"{line}\n" for line in step.lines))
        return Store.open(place)


def run_in_a_process(arguments: Sequence[str], lines: str) -> None:
    """Run ``nait-store`` in a process of its own.

    Raises
    ------
    NaitStoreError
        It failed; with what it said last.
    """
    done = subprocess.run(
        [sys.executable, "-m", "nait_store.cli.main", *arguments],
        input=lines,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise NaitStoreError(
            f"nait-store {' '.join(arguments[3:5])} … failed with exit code {done.returncode}: "
            + " ".join(line.strip() for line in said[-2:])
        )


def _check_input(wanted: Input) -> Check:
    from nait_store.capture.readers import open_sources
    from nait_store.errors import NotFoundError
    from nait_store.store.ranking_checks import Check

    subject = f"file:{wanted.uri}"
    try:
        (found,) = open_sources([wanted.uri])
    except NotFoundError as error:
        raise NotFoundError(
            f"{wanted.uri}, which {wanted.recorded_uri} was called, is not there: {error.what}"
            if wanted.uri != wanted.recorded_uri
            else error.what,
            next_step=f"say where it is now: --at '{wanted.recorded_uri}=PATH'",
        ) from error
    if wanted.sha256 is None:
        return Check(subject, "digest", True, "none was recorded, so that nobody knows whether these are the bytes")
    if found.sha256 is None:
        return Check(subject, "digest", True, f"not taken of {found.uri}; recorded {wanted.sha256[:12]}…")
    same = found.sha256 == wanted.sha256
    detail = (
        f"SHA-256 {wanted.sha256[:12]}…" if same else f"SHA-256 {found.sha256[:12]}…, recorded {wanted.sha256[:12]}…"
    )
    return Check(subject, "digest", same, detail)


@contextmanager
def _new_folder(folder: str | None) -> Iterator[str]:
    """A folder for a store: the one that was named, if there is nothing in it, or a temporary one."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="nait-store-") as temporary:
            yield str(Path(temporary) / "store")
        return
    from nait_store.storage.location import Location

    location = Location(folder)
    if location.is_file("") or location.names():
        raise AlreadyExistsError(f"there is something in {location.url} already", next_step="name a new folder")
    yield folder
