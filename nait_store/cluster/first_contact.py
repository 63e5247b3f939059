"""Whether anybody answers at the address of a cluster: Ray itself asks for minutes, and then ends the process."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

SECONDS = 10.0
"""How long to wait for an answer."""

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and no settings of ours
_FRAME_HEAD_BYTES = 9
_SETTINGS = 4


def require_answer(address: str, *, seconds: float = SECONDS) -> None:
    """Make sure that what Ray speaks, gRPC, is spoken at an address.

    Parameters
    ----------
    address
        ``host:port`` or ``ray://host:port``. Others are not looked at.
    seconds
        To wait for a connection, and for the answer.

    Raises
    ------
    ConnectionError
        Nobody is there, or somebody else is.
    """
    place = _host_and_port(address)
    if place is None:
        return
    try:
        with socket.create_connection(place, timeout=seconds) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return  # it would want a certificate first
            connection.sendall(_HELLO)
            head = b""
            while len(head) < _FRAME_HEAD_BYTES:
                received = connection.recv(_FRAME_HEAD_BYTES - len(head))
                if not received:
                    break
                head += received
    except TimeoutError as error:
        raise ConnectionError(f"no answer within {seconds:.0f} seconds") from error
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from error
    if len(head) < _FRAME_HEAD_BYTES or head[3] != _SETTINGS:  # the first frame of a server of HTTP/2
        raise ConnectionError("what listens there is not Ray")


def _host_and_port(address: str) -> tuple[str, int] | None:
    scheme, separator, rest = address.rpartition("://")
    if separator and scheme != "ray":
        return None
    try:
        parts = urlsplit(f"//{rest}")
        return (parts.hostname, parts.port) if parts.hostname and parts.port else None
    except ValueError:
        return None
