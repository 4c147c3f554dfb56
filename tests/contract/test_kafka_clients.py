"""A client of Kafka that is given up leaves nothing behind, whoever did not answer."""

import gc
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from infra.adapters.kafka_clients import connect

KINDS: list[Callable[..., Any]] = [KafkaConsumer, KafkaProducer, KafkaAdminClient]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("silent", [False, True])
def test_a_client_that_cannot_connect_leaves_no_socket_and_no_thread(make: Callable[..., Any], silent: bool) -> None:
    """Neither where nobody listens nor where a listener never answers, without the garbage collector's help."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        port = listener.getsockname()[1]
        threads, files = threading.active_count(), _files()
        gc.disable()
        try:
            with pytest.raises(KafkaError):
                connect(make, f"127.0.0.1:{port}", 0.5)
            assert (_files(), threading.active_count()) == (files, threads)
        finally:
            gc.enable()


def _files() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))
