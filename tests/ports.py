"""Ports that nobody has, and that no system gives to anybody who asks for any."""

import random
import socket


def free_port() -> int:
    """Below those that a `bind` to port 0 or a `connect` gets, which could take it before its user does."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
