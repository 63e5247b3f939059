"""Who answers at the address of a cluster."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from nait_store.cluster.first_contact import require_answer
from nait_store.cluster.ray_cluster import RayCluster


@contextmanager
def listening(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """Address of a server that does one thing with the first who connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(ConnectionError, match="refused"):
            require_answer(address)


def test_somebody_who_says_nothing_is_given_up() -> None:
    done = threading.Event()
    with listening(lambda _connection: done.wait(60)) as address:
        with pytest.raises(ConnectionError, match="no answer within 0 seconds"):
            require_answer(address, seconds=0.2)
        done.set()


def test_somebody_who_hangs_up_is_not_ray() -> None:
    with listening(lambda connection: connection.recv(1)) as address, pytest.raises(ConnectionError):
        require_answer(address)


def test_another_server_is_not_ray() -> None:
    with (
        listening(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as address,
        pytest.raises(ConnectionError, match=r"not Ray|reset"),
    ):
        require_answer(address)


def test_ray_answers(cluster: RayCluster) -> None:
    address = cluster.ray.get_runtime_context().gcs_address
    require_answer(address)
    require_answer(f"ray://{address}")


@pytest.mark.parametrize("address", ["", "auto", "k8s://there", "host", "host:port", "[::1", "host:99999999"])
def test_what_is_no_place_is_left_to_ray(address: str) -> None:
    require_answer(address)
