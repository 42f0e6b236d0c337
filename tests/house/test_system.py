"""tools/system.py installs what is missing where it may, and says so where it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import system


@pytest.fixture
def piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> system.Piece:
    """The one piece that this machine is asked for, and does not have."""
    wanted = system.Piece(
        name="A server", package="a-server", without="nothing is served", paths=(tmp_path / "server",)
    )
    monkeypatch.setattr(system, "PIECES", {"postgres": [wanted]})
    monkeypatch.delenv("CI", raising=False)
    return wanted


@pytest.fixture
def apt_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get that root finds first on the PATH: it writes down what it is told and brings the server."""
    told = tmp_path / "told"
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {told}\ntouch {tmp_path / "server"}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return told


def test_what_is_there_is_left_alone(
    piece: system.Piece, apt_get: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    piece.paths[0].touch()
    assert system.main(["postgres"]) == 0
    assert capfd.readouterr() == ("", "")
    assert not apt_get.exists()


def test_root_installs_what_is_missing(piece: system.Piece, apt_get: Path) -> None:
    assert system.main(["postgres"]) == 0
    assert piece.paths[0].exists()
    assert apt_get.read_text().splitlines() == [
        "--quiet update",
        "--quiet install --yes --no-install-recommends a-server",
    ]


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize(("in_ci", "code"), [(False, 0), (True, 1)])
def test_who_may_not_install_is_told_what_is_skipped_and_ci_skips_nothing(
    in_ci: bool, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    if in_ci:
        monkeypatch.setenv("CI", "true")
    assert system.main(["postgres"]) == code
    said = capfd.readouterr().err
    assert "skipped A server (a-server): nothing is served" in said
    assert ("CI skips nothing" in said) is in_ci


def test_an_unknown_set_is_refused() -> None:
    assert system.main(["everything"]) == 2
