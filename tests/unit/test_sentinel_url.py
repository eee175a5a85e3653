"""What a REDIS_URL that names Sentinel says."""

import pytest

from orchestrator.cli.run.serve import redis_place
from orchestrator.errors import SetupError
from orchestrator.settings import Settings
from orchestrator.store.sentinel import Primary

URL = "rediss+sentinel://me:secret@10.0.0.1:26380,box/night/2?ssl_ca_certs=/ca.pem"


def test_options_are_the_servers_and_tls_is_the_sentinels_too() -> None:
    primary = Primary(URL, 3)
    assert primary.url == "rediss://me:secret@night/2?ssl_ca_certs=/ca.pem"
    asked = [client.connection_pool.connection_kwargs for client in primary._sentinel.sentinels]
    assert [(each["host"], each["port"]) for each in asked] == [("10.0.0.1", 26380), ("box", 26379)]
    for each in asked:
        assert (each["ssl_ca_certs"], each["password"], each["socket_timeout"]) == (
            "/ca.pem", None, 1,
        )  # fmt: skip


@pytest.mark.parametrize(
    "url", ["redis+sentinel://box", "redis+sentinel://box:1/", "x+sentinel://a/b"]
)
def test_another_form_is_refused_with_the_right_one(url: str) -> None:
    with pytest.raises(SetupError, match=r"redis\+sentinel://HOST:PORT,HOST:PORT/NAME"):
        Primary(url, 3)


def test_what_is_shown_of_it_holds_no_password() -> None:
    shown = redis_place(Settings(redis_url=URL))
    assert shown == "rediss+sentinel://10.0.0.1:26380,box/night/2"
