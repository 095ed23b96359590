-- One row: what `cdc check` judges of the server and of the role that it runs as.
SELECT current_setting('wal_level'),
       pg_is_in_recovery(),
       current_setting('max_replication_slots')::int,
       (SELECT count(*) FROM pg_replication_slots)::int,
       current_setting('max_wal_senders')::int,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender')::int,
       current_setting('max_slot_wal_keep_size'),
       -- bytes a second since the statistics began; too short a time says nothing
       (SELECT (wal_bytes / extract(epoch FROM now() - stats_reset))::float8 FROM pg_stat_wal
        WHERE stats_reset < now() - interval '1 hour'),
       (SELECT setting FROM pg_settings WHERE name = 'data_directory'),  -- no row for who may not see it
       current_setting('synchronous_standby_names'),
       (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl),
       inet_server_addr() IS NULL,
       pg_backend_pid(),
       current_user::text,
       (SELECT bool_or(rolreplication OR rolsuper OR rolname = 'rds_replication') FROM pg_roles
        WHERE rolname = current_user
           OR (rolname = 'rds_replication' AND pg_has_role(current_user, oid, 'USAGE'))),
       has_database_privilege(current_database(), 'CREATE'),
       current_database()::text
