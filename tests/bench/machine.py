"""What a measurement costs besides time: CPU of this process and of the server, WAL, and the machine's other load."""

from __future__ import annotations

import os
import platform
import resource
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psycopg

_TICK = os.sysconf("SC_CLK_TCK")
_QUIET = 0.3  # cores that others may use while a measurement begins


@dataclass(frozen=True)
class Sample:
    """What `jobs` jobs cost: seconds, CPU microseconds and WAL bytes a job, cores that nobody here used meanwhile."""

    jobs: int
    seconds: float
    client_us: float
    server_us: float
    wal_bytes: float
    other_cores: float

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds


class Meter:
    """Reads the meters of one server; elsewhere than on Linux, or on another machine, its CPU reads 0."""

    def __init__(self, dsn: str) -> None:
        self._connection: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True)
        self._postmaster = _postmaster(self._connection)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def start(self) -> None:
        """From here on."""
        self._began = self._read()

    def stop(self, jobs: int) -> Sample:
        """Since `start()`."""
        seconds, client, server, wal, busy = (
            now - before for now, before in zip(self._read(), self._began, strict=True)
        )
        other = max(0.0, busy - client - server) / seconds
        return Sample(jobs, seconds, client / jobs * 1e6, server / jobs * 1e6, wal / jobs, other)

    def server_cpu(self) -> float:
        """CPU seconds of the server so far."""
        return tree_cpu(self._postmaster)

    def _read(self) -> tuple[float, float, float, float, float]:
        row = self._connection.execute("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8").fetchone()
        assert row is not None, "an expression gives a row"
        return time.monotonic(), own_cpu(), self.server_cpu(), row[0], busy_cpu()


def wait_until_quiet(patience: float) -> None:
    """Others work on this machine too: begin in a quiet moment, but do not wait for ever."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        busy, began = busy_cpu(), time.monotonic()
        time.sleep(0.25)
        if (busy_cpu() - busy) / (time.monotonic() - began) < _QUIET:
            return


def own_cpu() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def busy_cpu() -> float:
    """CPU seconds that the machine has been busy."""
    try:
        # user nice system idle iowait irq softirq steal: https://man7.org/linux/man-pages/man5/proc_stat.5.html
        ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0.0
    return (sum(ticks) - ticks[3] - ticks[4]) / _TICK


def tree_cpu(pid: int | None) -> float:
    """CPU seconds of a process, its living children, and those it has reaped."""
    if pid is None:
        return 0.0
    return (_ticks(pid, reaped=True) + sum(_ticks(child) for child in _children(pid))) / _TICK


def describe(server_version: str) -> str:
    """The machine and the versions, in a line."""
    packages = ", ".join(f"{name} {_version(name)}" for name in ("psycopg", "asyncpg", "uvloop", "uvicorn", "falcon"))
    return (
        f"{os.cpu_count()} cores of {_processor()}, {_memory()} GiB; PostgreSQL {server_version}; "
        f"Python {platform.python_version()}, {packages}"
    )


def _postmaster(connection: psycopg.Connection[Any]) -> int | None:
    try:
        row = connection.execute("show data_directory").fetchone()
        assert row is not None, "show gives a row"
        return int((Path(row[0]) / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, psycopg.Error):
        return None


def _ticks(pid: int, *, reaped: bool = False) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    # utime stime cutime cstime: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    return sum(int(field) for field in fields[11 : 15 if reaped else 13])


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
