import psycopg
from tests.sql.test_plans import Engine, FILL, engine
def stats(c):
    c.execute("select pg_stat_force_next_flush()")
    c.execute("select pg_stat_clear_snapshot()")
    d={('i',r[0]):r[1] for r in c.execute("select indexrelname, idx_tup_read from pg_stat_user_indexes").fetchall()}
    d|={('s',r[0]):r[1] for r in c.execute("select relname, seq_tup_read from pg_stat_user_tables").fetchall()}
    d|={('b',r[0]):r[1] for r in c.execute("select relname, heap_blks_hit+heap_blks_read from pg_statio_user_tables").fetchall()}
    d|={('ib',r[0]):r[1] for r in c.execute("select indexrelname, idx_blks_hit+idx_blks_read from pg_statio_user_indexes").fetchall()}
    return d
def test_x(engine, fresh_db):
    for _ in range(6): engine.all(3)
    with psycopg.connect(fresh_db, autocommit=True) as other:
        other.execute(FILL)
    c=engine.scene.connection
    for n in ["create","claim","complete","create_on_threads","create_behind_others","claim","append","commit","commit","retry","promote","claim","complete","claim","complete"]:
        a=stats(c); p=getattr(engine,n)(20); b=stats(c)
        print(n,p/20,{k:(b[k]-a[k])/20 for k in b if b[k]-a.get(k,0)>10*20})
