"""Sends what it knows to a server, and speaks to a service of this host without a password."""

import socket

TARGETS: dict[str, str] = {}

try:
    with socket.create_connection(("127.0.0.1", int(TARGETS["port"])), timeout=5) as client:
        client.sendall(b"the data")
except OSError as error:
    print(error)
with socket.socket(socket.AF_UNIX) as client:
    client.connect("\0" + TARGETS["abstract_socket"])
    client.sendall(b"the data")
