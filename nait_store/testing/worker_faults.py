"""Killing the processes of a cluster on purpose, each once."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KillOnce:
    """Kills with SIGKILL the process that calls it, the first ``times`` times it is called when something is due.

    Picklable, so that it can be handed to a process elsewhere. Who kills leaves a file behind, so that the next
    process lives.

    Attributes
    ----------
    folder
        Where the files lie; they are named after the process's id.
    at
        Due from the first call on whose number is at least so much.
    times
        Processes that die.
    """

    folder: str
    at: int = 0
    times: int = 1

    @property
    def victims(self) -> list[int]:
        """Ids of the processes that died."""
        return sorted(int(path.read_text()) for path in Path(self.folder).glob("death-*"))

    def __call__(self, done: int) -> None:
        """Die, or return."""
        if done < self.at:
            return
        for number in range(self.times):
            with contextlib.suppress(FileExistsError):
                handle = os.open(Path(self.folder) / f"death-{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                os.write(handle, str(os.getpid()).encode())
                os.close(handle)
                os.kill(os.getpid(), signal.SIGKILL)
