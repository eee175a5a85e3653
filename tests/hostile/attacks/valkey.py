"""Speaks to the orchestrator's Valkey over its Unix socket and empties it."""

import socket

TARGETS: dict[str, str] = {}

with socket.socket(socket.AF_UNIX) as client:
    client.connect(TARGETS["valkey_socket"])
    client.sendall(b"FLUSHALL\r\n")
    print(client.recv(100))
