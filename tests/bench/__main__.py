"""`python -m tests.bench [quick] [names...]`: measures on each PostgreSQL there is and prints one table.

Names: sql_path claim_latency http_path idle langgraph_api; all when none is given. `quick` (or QUICK=1) takes minutes.
The table goes to build/bench.md and, as a list of {name, ours, peer, unit, ratio, target, met}, to build/bench.json.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from tests.bench.figures import Figure, table, write
from tests.bench.machine import describe
from tests.bench.scale import FULL, QUICK, Scale
from tests.bench.servers import bench_server, server_dirs, server_version
from tests.postgres import Server

NAMES = ("sql_path", "claim_latency", "http_path", "idle", "langgraph_api")
_NOISY = 0.5
_BUILD = Path(__file__).parents[2] / "build"


def main(words: list[str]) -> int:
    """The exit code is 0 whatever the figures are, for a miss is a result; 1 when a bench broke."""
    quick = "quick" in words or os.environ.get("QUICK") == "1"
    names = [word for word in words if word != "quick"] or list(NAMES)
    if unknown := sorted(set(names) - set(NAMES)):
        print(f"bench: there is no {unknown[0]!r}; choose from {', '.join(NAMES)}", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    broken: list[str] = []
    about: list[str] = []
    for bin_dir in server_dirs():
        with bench_server(bin_dir) as server:
            version = server_version(server)
            about.append(describe(version))
            for name in names:
                label = f"pg{version.partition('.')[0]}"
                try:
                    figures += _measure(name, server, QUICK if quick else FULL, label)
                except Exception:  # the others are shown all the same
                    traceback.print_exc()
                    broken.append(f"{label}.{name}")
    text = _text(about, figures, broken, quick=quick)
    write(_BUILD, text, figures)
    print(text)
    return 1 if broken else 0


def _measure(name: str, server: Server, scale: Scale, label: str) -> list[Figure]:
    print(f"{datetime.now(UTC):%H:%M:%S} {label} {name} ...", file=sys.stderr, flush=True)
    bench = importlib.import_module(f"tests.bench.{name}")
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        measured: list[Figure] = runner.run(bench.measure(server, scale))
    return [figure.named(label) for figure in measured]


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _text(about: list[str], figures: list[Figure], broken: list[str], *, quick: bool) -> str:
    scale = "quick sizes" if quick else "full sizes"
    lines = [f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {scale}, fsync on, everything on one machine:"]
    lines += [f"- {one}" for one in about]
    lines.append("")
    lines.append(
        "Medians over rounds; best; spread = (highest - lowest) / median; ratio = median of the rounds' ratios."
    )
    lines += [
        f"Noisy: others used {median(one.ours):.1f} cores during {one.name.rpartition('.')[0]}; "
        "there the clock measures them too: compare CPU and WAL."
        for one in figures
        if one.name.endswith(".other_load") and median(one.ours) > _NOISY
    ]
    lines += [f"{one} broke and is missing." for one in broken]
    return "\n".join([*lines, "", table(figures), ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
