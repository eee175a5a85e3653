"""Serves an ASGI application of the benchmark as `autoresearch serve` serves the product's.

python -m bench.harness.serve bench.orchestrator.yardstick:app FD
"""

import socket
import sys

import uvicorn


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print("{}", flush=True)


def main() -> None:
    name, descriptor = sys.argv[1:]
    config = uvicorn.Config(
        name,
        log_config=None,
        access_log=False,
        lifespan="on",
        loop="auto",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])


if __name__ == "__main__":
    main()
