"""The points themselves: where they are put, that they change nothing, and that a session stops there and nowhere else."""

from __future__ import annotations

from tests.proof.races import ground as grounds
from tests.proof.races.calls import VERBS
from tests.proof.races.pauses import Point, rewritten
from tests.proof.races.stage import Stage

BODY = """
declare
  v_text text := 'begin; -- not here';
begin
  select id into v_text from promise where id = 'a;' for no key update;  -- nor; here
  if not found then
    perform f(array(select 1), $x$ ; $x$);
  end if;
end"""


def test_points_stand_behind_statements() -> None:
    points: dict[str, Point] = {}
    body = rewritten("f", BODY, points)
    assert list(points) == ["f:0", "f:1", "f:2", "f:3"]
    assert body.count("_pause") == 4
    assert "begin if _pause('f:0') is null then end if;\n" in body
    assert "for no key update; if _pause('f:1') is null then end if;  -- nor; here" in body
    assert [each.locks for each in points.values()] == [False, True, False, False]


def test_what_the_statement_before_said_still_holds(stage: Stage) -> None:
    """FOUND and the row count are those of the statement, not of the point behind it."""
    stage.boss.query("create table pg_temp.t as select 1 as n")
    source = """
    declare v_count integer; v_found boolean;
    begin
      delete from pg_temp.t where n = 2;
      v_found := found;
      delete from pg_temp.t;
      get diagnostics v_count = row_count;
      return v_found::text || v_count;
    end"""
    body = rewritten("counted", source, {})
    stage.boss.query(f"create function pg_temp.counted() returns text language plpgsql as $${body}$$")
    assert stage.boss.one("select pg_temp.counted()") == "false1"


def test_a_session_stops_where_it_is_told_to(stage: Stage) -> None:
    resolve = VERBS["resolve"].do
    path = stage.path(resolve, grounds.held)
    assert path[0] == "resolve:0"
    assert any(each.startswith("_lock_deciding:") for each in path)
    ground = stage.ground(grounds.held)
    a, b = stage.sessions
    stops = [path[0], next(each for each in path if stage.points[each].writes)]
    stage.conductor.arm(a, stops)
    stage.conductor.arm(b, [])
    seen = []
    for _ in range(2):
        stage.conductor.step(a, lambda sql: resolve(sql, ground))
        seen.append((a.rest, a.at))
    assert seen == [("paused", stops[0]), ("paused", stops[1])]
    assert stage.boss.state(ground.names.p) == "pending"
    stage.conductor.step(b, lambda sql: resolve(sql, ground))
    assert (b.rest, b.blocked) == ("blocked", True)
    stage.conductor.step(a, lambda sql: resolve(sql, ground))
    assert (a.answer(), b.answer()) == ("settled", "already")
