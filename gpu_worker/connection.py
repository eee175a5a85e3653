"""How the orchestrator is reached: directly, or through the proxy that the environment names.

httpx reads these variables too, but answers a wrong one with a traceback, knows no networks in
NO_PROXY, and asks a proxy for this machine's own addresses.
"""

import ipaddress
import os
import socket
import ssl
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from orchestrator.errors import SetupError, reason


def options(url: str, token: str | None, ca: Path | None = None) -> dict[str, Any]:
    """Arguments of an httpx client for `url`, which trusts the certificates in `ca`, by default the
    system's; SetupError names the variable that is wrong."""
    variable = proxy_variable(url)
    proxy = _proxy(variable) if variable else None
    to_proxy = proxy is not None and proxy.url.scheme == "https"
    encrypted = to_proxy or urlsplit(url).scheme == "https"
    # Reading the certificates takes 50 ms; without any, a connection that needs them fails.
    trusted = _certificates(ca) if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if proxy is not None and to_proxy:
        proxy.ssl_context = trusted
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {token}"} if token else {},
        "trust_env": False,
        "proxy": proxy,
        "verify": trusted,
    }


def proxy_variable(url: str) -> str | None:
    """The variable whose proxy is asked for `url`; None if it is reached directly."""
    parts, proxies = urlsplit(url), urllib.request.getproxies()
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    if kind is None or _is_direct(parts.hostname or "", parts.port):
        return None
    return f"{kind.upper()}_PROXY"


def _is_direct(host: str, port: int | None) -> bool:
    """True for this machine's own addresses, and for what NO_PROXY names."""
    if host == "localhost" or urllib.request.proxy_bypass(f"{host}:{port}" if port else host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return _is_own(address) or any(_holds(part, address) for part in named.split(","))


def _is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))  # sends nothing, but chooses our address
        except OSError:
            return False
        return bool(probe.getsockname()[0] == str(address))


def _holds(part: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """True for a part of NO_PROXY such as 10.0.0.0/8 or [fd00::1]."""
    try:
        return address in ipaddress.ip_network(part.strip().strip("[]"), strict=False)
    except ValueError:
        return False


def _proxy(variable: str) -> httpx.Proxy:
    url = urllib.request.getproxies()[variable.removesuffix("_PROXY").lower()]
    try:
        proxy = httpx.Proxy(url if "://" in url else f"http://{url}")
        usable = bool(proxy.url.host)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise SetupError(
            # Not its value, which may hold a password.
            f"{variable} is no URL such as http://proxy:3128; correct it, or name the "
            "orchestrator's host in NO_PROXY"
        )
    if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise SetupError(
            f"{variable} names a SOCKS proxy, which needs a package: pip install socksio; or name "
            "the orchestrator's host in NO_PROXY"
        )
    return proxy


def _certificates(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca) if ca else httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        if ca:
            raise SetupError(
                f"--ca (AUTORESEARCH_CA) is {ca}, which holds no certificates ({reason(error)}):"
                " name a PEM file"
            ) from error
        raise SetupError(
            f"SSL_CERT_FILE is {os.environ.get('SSL_CERT_FILE')!r}, which holds no certificates "
            f"({reason(error)}); correct or unset it"
        ) from error
