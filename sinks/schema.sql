-- What the sinks of all pipelines keep in a replica's database. Made once; every statement may run again.
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
    run text,                          -- the snapshot run in hand
    seen_table text                    -- in schema cdc: the keys seen since it began
);

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
