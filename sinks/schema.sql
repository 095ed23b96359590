-- What the sinks of all pipelines keep in a replica's database. Made once; every statement may run again.
-- Workers of several versions may be at work here at once: columns are added, and never dropped, renamed or retyped.
CREATE SCHEMA IF NOT EXISTS cdc;

-- What has been applied: changed in the same transaction as the rows it covers.
CREATE TABLE IF NOT EXISTS cdc.checkpoint (
    pipeline text NOT NULL,
    sink text NOT NULL,
    stream text NOT NULL,              -- without the pipeline: customer, from the second epoch on customer@2
    incarnation text NOT NULL,
    commit_lsn pg_lsn NOT NULL,
    ordinal bigint NOT NULL,
    applied_lsn pg_lsn,                -- everything the source committed before this is in the replica
    owner text,
    lease_until timestamptz,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (pipeline, sink, stream)
) WITH (fillfactor = 50);

-- Whose each replica table is.
CREATE TABLE IF NOT EXISTS cdc.replica (
    table_name text PRIMARY KEY,       -- as SQL names it
    pipeline text NOT NULL,
    sink text NOT NULL,
    event text NOT NULL,               -- customer.v1
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    filled boolean NOT NULL DEFAULT false,           -- a snapshot run has ended since
    wants_snapshot boolean NOT NULL DEFAULT false,   -- and has not asked the reader yet
    asked_run text,                    -- the snapshot run that the reader was asked for, until one has ended
    relation oid,                      -- the table itself: another one may take its name
    run text,                          -- the snapshot run in hand
    unseen_table text                  -- in schema cdc: the keys that were there when it began and were not seen since
);

-- Tables that are filled to take the place of a replica table, and what became of them.
CREATE TABLE IF NOT EXISTS cdc.rebuild (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,          -- as SQL names it
    pipeline text NOT NULL,
    sink text NOT NULL,
    event text NOT NULL,               -- customer.v1
    shadow text NOT NULL,              -- the table that is filled, as SQL names it
    keep_as text,                      -- the name that the old table gets; NULL: it is dropped
    drop_columns boolean NOT NULL,     -- those that no field of the event fills
    state text NOT NULL DEFAULT 'asked',             -- asked, filling, filled, done, failed, called off
    run text,                          -- the snapshot run that was asked for
    frozen boolean NOT NULL DEFAULT false,           -- the old table does not take the new types' values any more
    rows bigint NOT NULL DEFAULT 0,    -- written to the table that is filled
    reason text,                       -- what it waits for, or why it failed
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS rebuild_in_hand ON cdc.rebuild (table_name) WHERE ended_at IS NULL;

-- Versions before kept the keys that a run had seen, in `seen_table`, and their workers may still do so.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'cdc.replica'::regclass AND attname = 'unseen_table') THEN
        ALTER TABLE cdc.replica ADD COLUMN unseen_table text;
        UPDATE cdc.rebuild SET run = NULL WHERE ended_at IS NULL;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'cdc.replica'::regclass AND attname = 'asked_run') THEN
        ALTER TABLE cdc.replica ADD COLUMN asked_run text, ADD COLUMN relation oid;
    END IF;
END
$$;

-- Events that the replica refused.
CREATE TABLE IF NOT EXISTS cdc.dead_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline text NOT NULL,
    sink text NOT NULL,
    stream text NOT NULL,
    commit_lsn pg_lsn NOT NULL,
    ordinal bigint NOT NULL,
    type text NOT NULL,
    op text NOT NULL,
    key bytea NOT NULL,                -- bytea: a database of another encoding must be able to hold what it refused
    state bytea,
    partial text[] NOT NULL,
    quoted text[] NOT NULL,
    rev integer NOT NULL,
    sqlstate text NOT NULL,
    message text NOT NULL,             -- never a row's values
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 1
);
CREATE INDEX IF NOT EXISTS dead_event_key ON cdc.dead_event (pipeline, sink, type, sha256(key));
