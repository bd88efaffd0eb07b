"""The ids that the executor makes: ordered ones for checkpoints, and ones that are the same in every attempt."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Sequence
from hashlib import blake2b


def ordered_id(after: str | None = None) -> str:
    """A UUIDv7 that sorts behind `after`, whatever this machine's clock says."""
    stamp = (time.time_ns() // 1_000_000) << 12 | secrets.randbits(11)
    if after is not None:
        stamp = max(stamp, _stamp(after) + 1)
    return _with_stamp(stamp, secrets.randbits(62))


def child_checkpoint_id(task_id: str, base: str, step: int) -> str:
    """The id of a subgraph's checkpoint: the same in every attempt, and ordered by step."""
    tail = int.from_bytes(blake2b(f"{task_id}/{step}".encode(), digest_size=8).digest()) >> 2
    return _with_stamp(_stamp(base) + step + 2, tail)


def task_id(checkpoint_id: str, path: Sequence[str | int]) -> str:
    """The id of a task: the same in every attempt."""
    digest = blake2b(f"{checkpoint_id}{json.dumps(list(path))}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=5))


def interrupt_id(task: str, scope: str, nth: int) -> str:
    """The id of a task's nth question: 32 hex digits, the same in every attempt, new for each question."""
    return blake2b(f"{task}:{scope}:{nth}".encode(), digest_size=16).hexdigest()


def _stamp(text: str) -> int:
    number = uuid.UUID(text).int
    return number >> 80 << 12 | number >> 64 & 0xFFF


def _with_stamp(stamp: int, tail: int) -> str:
    high = (stamp >> 12 & (1 << 48) - 1) << 80 | 7 << 76 | (stamp & 0xFFF) << 64
    return str(uuid.UUID(int=high | 2 << 62 | tail))
