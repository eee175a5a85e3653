"""Readiness beyond Redis: the home."""

from pathlib import Path

from tests.conftest import MakeApi


def test_an_orchestrator_whose_home_is_gone_is_not_ready_and_says_why(
    make_api: MakeApi, tmp_path: Path
) -> None:
    """Also when another folder is in its place, because the sources and logs are not in that."""
    api, home = make_api(), tmp_path / "home"
    assert api.http.get("/readyz").status_code == 200
    api.tag()  # the first file makes the home
    assert api.http.get("/readyz").status_code == 200
    home.rename(tmp_path / "elsewhere")
    for _ in range(2):
        answer = api.http.get("/readyz")
        assert answer.status_code == 503
        assert f"The home {home} was deleted, moved or replaced" in answer.json()["error"]
        home.mkdir(exist_ok=True)
    home.rmdir()
    (tmp_path / "elsewhere").rename(home)
    assert api.http.get("/readyz").status_code == 200
