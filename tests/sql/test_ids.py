"""Ids carry their place; places in line carry their priority."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_DNS, NAMESPACE_URL, UUID, uuid4, uuid5

import psycopg
import pytest

from tests.sql.scene import Scene

GRAPHS = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def test_an_id_is_a_uuid_of_version_7_with_its_time(scene: Scene) -> None:
    before = scene.value("select floor(extract(epoch from clock_timestamp()) * 1000)::bigint")
    made = [scene.bare("make_id") for _ in range(20)]
    after = scene.value("select ceil(extract(epoch from clock_timestamp()) * 1000)::bigint")
    assert all((one.version, one.variant) == (7, uuid4().variant) for one in made)
    assert all(before <= one.int >> 80 <= after for one in made)
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("shard", [0, 1, 255, 256, 2748, 4095])
def test_an_id_carries_its_shard(scene: Scene, shard: int) -> None:
    made = scene.value("select duragraph.make_id(%s::smallint)", shard)
    assert scene.value("select duragraph.shard_of(%s)", made) == shard


def test_ids_without_a_shard_spread(scene: Scene) -> None:
    shards = scene.value("select count(distinct duragraph.shard_of(duragraph.make_id())) from generate_series(1, 500)")
    assert shards > 400


def test_the_shard_of_a_foreign_id_is_the_twelve_bits_behind_its_version(scene: Scene) -> None:
    for one in (uuid4(), UUID(int=0), UUID(int=2**128 - 1)):
        assert scene.value("select duragraph.shard_of(%s)", one) == (one.int >> 64) & 0xFFF


def test_ids_of_one_shard_sort_by_time(scene: Scene) -> None:
    made = [
        scene.value("select duragraph.make_id(7::smallint)")
        for _ in range(5)
        if scene.value("select pg_sleep(0.002)") == ""
    ]
    assert len(made) == 5
    assert made == sorted(made)


def test_a_run_has_the_shard_of_its_thread(scene: Scene) -> None:
    scene.worker()
    for thread in (scene.thread(), str(uuid4())):
        run = scene.run(thread, if_not_exists="create")
        assert scene.value("select duragraph.shard_of(%s) = duragraph.shard_of(%s)", run, thread) is True


def test_times_bound_ids(scene: Scene) -> None:
    made = scene.bare("make_id")
    inside = (
        "select duragraph.uuid_at(now() - interval '1 hour') < %s and %s < duragraph.uuid_at(now() + interval '1 hour')"
    )
    assert scene.value(inside, made, made) is True
    assert scene.value("select duragraph.uuid_at('2020-01-01')").int >> 80 == 1577836800000


@pytest.mark.parametrize(
    "name", ["", "a", "agent", "é" * 30, "x" * 38, "x" * 39, "x" * 40, "x" * 47, "x" * 48, "x" * 200]
)
def test_names_give_the_ids_that_python_gives(scene: Scene, name: str) -> None:
    for namespace in (GRAPHS, NAMESPACE_DNS, NAMESPACE_URL):
        assert scene.value("select duragraph.uuid5(%s, %s)", namespace, name) == uuid5(namespace, name)


def test_a_higher_priority_comes_first_and_then_who_came_first(scene: Scene) -> None:
    order = [0, 5, -1, 5, 32767, -32768, 0]
    places = [(scene.value("select duragraph.queue_ord(%s)", priority), n) for n, priority in enumerate(order)]
    assert [n for _, n in sorted(places)] == [4, 1, 3, 0, 6, 2, 5]
    assert all(place >= 0 for place, _ in places)


def test_a_priority_out_of_range_is_the_nearest_in_range(scene: Scene) -> None:
    def bits(priority: int) -> int:
        place: int = scene.value("select duragraph.queue_ord(%s)", priority)
        return place >> 47

    assert (bits(2**31 - 1), bits(-(2**31))) == (bits(32767), bits(-32768))
