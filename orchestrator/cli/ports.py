"""The listening socket: bound before anything else starts, and who sits there if it is taken."""

import errno
import socket

from orchestrator.cli.errors import ConfigError

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket (port 0: a free one). ConfigError says who has it and what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(f"--host {host} is no address of this machine: {error}") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_why_not(host, port, error)) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL under which this machine reaches what listens there."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  (compared, not bound)
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken by {_who_answers(host, port)}"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges: choose one above 1023 with --port."
    return f"cannot listen on {host} port {port}: {error.strerror or error}."


def _who_answers(host: str, port: int) -> str:
    """A taken port's holder, as far as its answer to GET /healthz tells."""
    import httpx

    other = "choose another with --port, or --port 0 for a free one."
    reach = "127.0.0.1" if host in ("0.0.0.0", "") else host  # noqa: S104  (compared, not bound)
    url = f"http://[{reach}]:{port}" if ":" in reach else f"http://{reach}:{port}"
    try:
        with httpx.Client(timeout=2, trust_env=False) as http:
            response = http.get(f"{url}/healthz")
            body = response.json() if response.is_success else None
    except httpx.TransportError:
        return f"another program, which speaks no HTTP: end it, or {other}"
    except ValueError:
        body = None
    if isinstance(body, dict) and body.get("service") == "autoresearch":
        return (
            f"another autoresearch orchestrator ({url}): use that one (`autoresearch status`), "
            f"end it, or {other}"
        )
    return f"another web server: end it, or {other}"
