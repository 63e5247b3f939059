"""The process behind :func:`nait_store.testing.object_store.object_store`; run with ``python -m``, not imported.

moto answers, but through a small HTTP server of our own: werkzeug's closes every connection and waits 10 ms for each
request, which would hide what the code under test costs. Requests are answered one at a time, so that a conditional
PUT is atomic as it is on S3: moto by itself looks first and stores later.

It prints its port on a line of its own, and ends when its standard input does: also if the parent was killed.
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import sys
import threading
from http.server import ThreadingHTTPServer
from typing import Any, ClassVar

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app

_NO_BODY = frozenset({204, 304})


class _Handler(MotoRequestHandler):  # type: ignore[misc] # moto is untyped for us
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    ignore_conditions: ClassVar[bool] = False
    lose_responses_to: ClassVar[str] = ""
    _lost: ClassVar[set[str]] = set()
    _one_at_a_time: ClassVar[threading.Lock] = threading.Lock()

    def run_wsgi(self) -> None:
        if self.headers.get("Expect", "").lower().strip() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        environ = self.make_environ()
        if environ.get("wsgi.input_terminated"):
            body = environ["wsgi.input"].read()
        else:
            body = self.rfile.read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        if self.ignore_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        status, headers, payload = self._answer(environ)
        if self._is_lost():
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        code, _, reason = status.partition(" ")
        dropped = {"connection", "transfer-encoding"} | ({"content-length"} if self.command != "HEAD" else set())
        self.send_response_only(int(code), reason)
        for key, value in headers:
            if key.lower() not in dropped:
                self.send_header(key, value)
        if self.command != "HEAD" and int(code) not in _NO_BODY:
            self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def _answer(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        answered: list[Any] = []
        with self._one_at_a_time:
            pieces = self.server.app(environ, lambda status, headers, _=None: answered.extend((status, headers)))
            try:
                return answered[0], answered[1], b"".join(pieces)
            finally:
                if hasattr(pieces, "close"):
                    pieces.close()

    def _is_lost(self) -> bool:
        """Whether this is the first write to one of the objects whose first answer gets lost."""
        name = self.path.partition("?")[0]
        if not self.lose_responses_to or self.command != "PUT" or self.lose_responses_to not in name:
            return False
        with self._one_at_a_time:
            seen = name in self._lost
            self._lost.add(name)
        return not seen


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    multithread = True
    multiprocess = False
    ssl_context = None
    _server_version = "moto"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.app = DomainDispatcherApplication(create_backend_app)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that are killed in the middle of a request are what the tests are about."""


def serve(*, ignore_conditions: bool, lose_responses_to: str) -> None:
    """Answer until standard input ends."""
    _Handler.ignore_conditions = ignore_conditions
    _Handler.lose_responses_to = lose_responses_to
    server = _Server()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)  # nothing is worth tidying up


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ignore-conditions", action="store_true")
    parser.add_argument("--lose-responses-to", default="")
    options = parser.parse_args()
    serve(ignore_conditions=options.ignore_conditions, lose_responses_to=options.lose_responses_to)
