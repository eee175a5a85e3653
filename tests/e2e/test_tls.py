"""HTTPS: the real service with a certificate of its own, and who calls it."""

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import anyio
import httpx
import pytest

from gpu_worker.client import Client, Unavailable
from orchestrator import schemas
from orchestrator.cli import main

TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=box",
            "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="module")
def url(certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    cert, key = certificate
    home = tmp_path_factory.mktemp("home")
    with subprocess.Popen(
        [
            sys.executable, "-m", "orchestrator.cli", "serve", "--json", "--port", "0",
            "--home", str(home), "--tls-cert", str(cert), "--tls-key", str(key), "--token", TOKEN,
        ],
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()


def test_a_command_trusts_the_certificate_that_it_is_given(
    url: str, certificate: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert url.startswith("https://127.0.0.1:")
    words = ["token", "list", "--orchestrator", url, "--token", TOKEN]
    assert main([*words, "--ca", str(certificate[0])]) == 0
    assert main(words) == 3
    assert "certificate" in capsys.readouterr().err.lower()


def test_a_worker_s_client_trusts_it_too(url: str, certificate: tuple[Path, Path]) -> None:
    gpu = schemas.RegisterGpuRequest(gpu_id="g", gpu_index=0, gpu_name="x", vram_mb=1)

    async def register(ca: Path | None) -> None:
        client = Client(url, TOKEN, ca)
        try:
            await client.register(gpu)
        finally:
            await client.close()

    anyio.run(register, certificate[0])
    with pytest.raises(Unavailable, match="certificate"):
        anyio.run(register, None)


def test_a_session_s_cookies_stay_with_their_host_and_with_tls(
    url: str, certificate: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(cafile=certificate[0])
    with httpx.Client(base_url=url, verify=context) as page:
        answer = page.post("/api/login", json={"token": TOKEN})
        for line in answer.headers.get_list("set-cookie"):
            ((name, cookie),) = SimpleCookie(line).items()
            assert name.startswith("__Host-autoresearch_")
            assert (bool(cookie["secure"]), cookie["path"], cookie["domain"]) == (True, "/", "")
        assert page.get("/api/pool/list").status_code == 200
        csrf = next(value for name, value in page.cookies.items() if "_csrf_" in name)
        changed = page.post(
            "/api/experiment/setup",
            json={"tag": "t"},
            headers={"x-csrf-token": csrf, "origin": url},
        )
        assert changed.status_code == 200
