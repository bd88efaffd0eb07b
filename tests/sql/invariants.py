"""What must be true of the tables between any two transactions."""

from __future__ import annotations

from typing import Any

import psycopg

VIOLATIONS = """
with places as (
  select run_id, 'ready' as place, ord, attempt, last_seq from duragraph.ready
  union all
  select run_id, 'lease', null, null, last_seq from duragraph.leases
  union all
  select run_id, 'waiting', ord, 0, 0 from duragraph.waiting
  union all
  select run_id, case when holds_slot then 'backoff' else 'delayed' end, ord, attempt, last_seq from duragraph.scheduled
),
lines as (
  select s.*,
    (select count(*) from duragraph.waiting w where w.thread_id = s.thread_id) as in_line,
    (select count(*) from duragraph.scheduled d where d.thread_id = s.thread_id and not d.holds_slot) as later
  from duragraph.slots s
),
logs as (select run_id, count(*) as n, min(seq) as first, max(seq) as last from duragraph.events group by run_id)

-- P1: a pending run has exactly one place, any other has none.
select 'a pending run is in ' || count(p.place) || ' places' as what, r.run_id as which
from duragraph.runs r left join places p using (run_id) where r.status = 'pending'
group by r.run_id having count(p.place) <> 1
union all
select 'a run that has ended, or is gone, is in ' || p.place, p.run_id
from places p left join duragraph.runs r using (run_id) where r.status is distinct from 'pending'

-- P6: who may run on a thread is the one that its slot names.
union all
select 'not the active run of its thread is in ' || p.place, r.run_id
from places p join duragraph.runs r using (run_id) left join duragraph.slots s using (thread_id)
where not r.temporary and p.place in ('ready', 'lease', 'backoff') and s.active_run_id is distinct from r.run_id
union all
select 'the active run of a thread is in ' || coalesce(p.place, 'no place'), s.active_run_id
from duragraph.slots s left join places p on p.run_id = s.active_run_id
where s.active_run_id is not null and (p.place is null or p.place in ('waiting', 'delayed'))
union all
select 'a run waits without a slot', r.run_id
from places p join duragraph.runs r using (run_id) left join duragraph.slots s using (thread_id)
where not r.temporary and p.place in ('waiting', 'delayed') and s.thread_id is null
union all
select format('a slot counts %s waiting of %s, %s delayed of %s', waiting, in_line, delayed, later), thread_id
from lines where waiting <> in_line or delayed <> later
union all
select 'a slot is kept for nobody', thread_id from lines where active_run_id is null and in_line + later = 0

-- P5: events are 1..n, and n is known everywhere.
union all
select 'a log has a gap', run_id from logs where first <> 1 or last <> n
union all
select format('last_seq is %s of %s', coalesce(l.last_seq, r.last_seq), coalesce(e.n, 0)), r.run_id
from duragraph.runs r left join duragraph.leases l using (run_id) left join logs e using (run_id)
where coalesce(l.last_seq, r.last_seq) <> coalesce(e.n, 0)
union all
select 'the queue and the run disagree on place, attempt or last_seq', r.run_id
from duragraph.runs r join places p using (run_id)
where p.place <> 'lease' and (p.ord, p.attempt, p.last_seq) is distinct from (r.ord, r.attempt, r.last_seq)
union all
select 'an attempt too many', r.run_id
from duragraph.leases l join duragraph.runs r using (run_id) where l.attempt > r.max_attempts

-- State: nothing stands on what is not there.
union all
select 'the head of a thread is missing', t.thread_id
from duragraph.threads t left join duragraph.checkpoints c using (thread_id, checkpoint_id)
where t.checkpoint_id is not null and c.checkpoint_id is null
union all
select 'a checkpoint shows a missing value of ' || k.key, c.checkpoint_id
from duragraph.checkpoints c cross join jsonb_each_text(c.channels) k
left join duragraph.channel_values v
  on v.thread_id = c.thread_id and v.checkpoint_ns = c.checkpoint_ns and v.channel = k.key
  and v.checkpoint_id = k.value::uuid
where v.channel is null
union all
select 'a list begins in a missing value of ' || v.channel, v.checkpoint_id
from duragraph.channel_values v left join duragraph.channel_values b
  on b.thread_id = v.thread_id and b.checkpoint_ns = v.checkpoint_ns and b.channel = v.channel
  and b.checkpoint_id = v.base_checkpoint_id
where v.base_checkpoint_id is not null and b.channel is null
"""


def violations(connection: psycopg.Connection[Any]) -> list[tuple[str, Any]]:
    """What is wrong in the database, in words; best nothing."""
    return connection.execute(VIOLATIONS).fetchall()
