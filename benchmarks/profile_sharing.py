"""Pushing a profile to S3 and pulling it, against copying its folder: bytes on the wire, and time.

Every byte between this process and the object store (moto, on loopback) goes through a relay that counts it, headers
and all. Copying is ``s3fs.put`` and ``s3fs.get`` of the folder: no digests, no check, and whoever comes in the
middle sees half of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import numpy as np

import nait_store
from benchmarks.harness import Options, Report, interleave, run, workspace
from nait_store.testing.object_store import ObjectStore, object_store
from nait_store.testing.stores import build_set

FULL = (32, 11_008)
TOY = (2, 256)
N_SAMPLES = 64
_BLOCK_BYTES = 1 << 16


@dataclass
class Relay:
    """Passes connections on to a server, and counts what goes through.

    Attributes
    ----------
    target
        Host and port of the server.
    n_bytes
        Passed on so far, both ways.
    """

    target: tuple[str, int]
    n_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def listening(self) -> Iterator[str]:
        """Listen for as long as the block lasts; yields the URL to connect to."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()
            yield f"http://127.0.0.1:{server.getsockname()[1]}"

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:  # the block ended
                return
            upstream = socket.create_connection(self.target)
            for source, sink in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(_BLOCK_BYTES):
                with self._lock:
                    self.n_bytes += len(block)
                sink.sendall(block)
            sink.shutdown(socket.SHUT_WR)


def body(options: Options, report: Report) -> None:
    """Count the bytes of one push, a second one and one pull; then time them."""
    n_layers, n_neurons = TOY if options.toy else FULL
    with workspace(options, 8 * N_SAMPLES * n_layers * n_neurons) as folder, object_store() as server:
        ours = nait_store.open(str(folder / "ours"), create=True)
        shape = {"n_layers": n_layers, "n_neurons": n_neurons}
        build_set(ours.location, "gsm8k", N_SAMPLES, mean=np.ones(n_neurons, np.float32), **shape)
        ours.profiles.build("math", source="gsm8k", method="mean")
        _count(report, server, ours, folder)
        _time(report, server, ours, folder, options.rounds)


def _count(report: Report, server: ObjectStore, ours: nait_store.Store, folder: Path) -> None:
    where = urlparse(os.environ["AWS_ENDPOINT_URL"])
    relay = Relay((str(where.hostname), int(where.port or 0)))
    registry = server.new_url()
    with relay.listening() as url:
        direct, os.environ["AWS_ENDPOINT_URL"] = os.environ["AWS_ENDPOINT_URL"], url
        try:
            theirs = nait_store.open(str(folder / "theirs"), create=True)
            counted = {}
            size_bytes = 0
            for what in ("push", "push again", "pull", "pull again"):
                before = relay.n_bytes
                if what.startswith("push"):
                    size_bytes = ours.remotes.push("math@1", registry).size_bytes
                else:
                    theirs.remotes.pull("math@1", registry)
                counted[what] = relay.n_bytes - before
        finally:
            os.environ["AWS_ENDPOINT_URL"] = direct
    expected, found = (store.profiles.open("math@1").directions() for store in (ours, theirs))
    if not np.array_equal(expected, found):
        raise SystemExit("another profile arrived")
    rows = [(what, f"{n:,}", f"{n / size_bytes:.3f}") for what, n in counted.items()]
    title = (
        f"{expected.shape[0]} layers × {expected.shape[1]:,} neurons, {size_bytes:,} bytes in all files of the version"
    )
    report.table(title, ("what", "bytes on the wire", "of its size"), rows)
    for what in ("push", "pull"):
        report.limit(f"bytes of a {what} against the profile's size", "≤", 1.05, counted[what] / size_bytes)
    report.limit("bytes of a second push", "≤", 20.0, counted["push again"] / 1e3, " kB")


def _time(report: Report, server: ObjectStore, ours: nait_store.Store, folder: Path, rounds: int) -> None:
    import s3fs

    fs = s3fs.S3FileSystem()
    payload = Path(ours.url) / ours.profiles.open("math@1").folder
    published, copied = server.new_url(), server.new_url()
    ours.remotes.push("math@1", published)
    fs.put(str(payload), f"{copied}/math", recursive=True)

    def pull() -> None:
        nait_store.open(str(folder / "pulled"), create=True).remotes.pull("math@1", published)

    def before(_: str) -> None:
        for name in ("pulled", "copied"):
            shutil.rmtree(folder / name, ignore_errors=True)

    cases = {
        "s3fs put": lambda: fs.put(str(payload), f"{server.new_url()}/math", recursive=True),
        "push": lambda: ours.remotes.push("math@1", server.new_url()),
        "push again": lambda: ours.remotes.push("math@1", published),
        "s3fs get": lambda: fs.get(f"{copied}/math", str(folder / "copied"), recursive=True),
        "pull": pull,
    }
    report.timings("On S3 (moto)", interleave(cases, rounds, before=before), reference="s3fs put")


if __name__ == "__main__":
    run(__doc__, body, packages=("s3fs", "moto"))
