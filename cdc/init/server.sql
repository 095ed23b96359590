-- What decides how this server is prepared for a reader, and by whom it is run.
SELECT pg_is_in_recovery() AS standby,
       current_setting('wal_level') AS wal_level,
       current_setting('max_slot_wal_keep_size') AS max_slot_wal_keep_size,
       current_setting('max_replication_slots')::int AS max_replication_slots,
       (SELECT count(*) FROM pg_replication_slots)::int AS used_slots,
       current_setting('max_wal_senders')::int AS max_wal_senders,
       (SELECT count(*) FROM pg_stat_replication)::int AS used_senders,
       (SELECT extract(epoch FROM now() - stats_reset)::float8 / 86400 FROM pg_stat_database
        WHERE datname = current_database()) AS counted_days,
       ARRAY(SELECT name FROM pg_settings WHERE name ~ '^(rds|cloudsql|azure|neon)[.]'
             UNION SELECT rolname FROM pg_roles
             WHERE rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin', 'supabase_admin', 'neon_superuser')
             UNION SELECT extname FROM pg_extension WHERE extname = 'neon') AS traces,
       EXISTS (SELECT FROM pg_roles WHERE rolname = %(role)s) AS role_exists
