-- One JSON object: what is judged of the server, and of the role that asks.
SELECT to_json(fact) FROM (
    SELECT current_database() AS database,
           current_user AS role,
           ARRAY(SELECT name FROM pg_settings WHERE name ~ '^(rds|cloudsql|azure|neon)[.]'
                 UNION SELECT rolname FROM pg_roles
                 WHERE rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin', 'supabase_admin',
                                   'neon_superuser')
                 UNION SELECT extname FROM pg_extension WHERE extname = 'neon') AS traces,
           pg_is_in_recovery() AS standby,
           current_setting('wal_level') AS wal_level,
           current_setting('max_slot_wal_keep_size') AS max_slot_wal_keep_size,
           current_setting('max_replication_slots')::int AS max_replication_slots,
           (SELECT count(*) FROM pg_replication_slots) AS used_slots,
           current_setting('max_wal_senders')::int AS max_wal_senders,
           -- not pg_stat_activity, which hides from an ordinary role which of the others are walsenders
           (SELECT count(*) FROM pg_stat_replication) AS used_senders,
           -- since the statistics began; too short a time says nothing
           (SELECT wal_bytes / extract(epoch FROM now() - stats_reset) FROM pg_stat_wal
            WHERE stats_reset < now() - interval '1 hour') AS wal_bytes_per_second,
           -- NULL for a role that may not see it
           (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS data_directory,
           current_setting('synchronous_standby_names') AS synchronous_standby_names,
           (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl) AS tls,
           inet_server_addr() IS NULL AS by_socket,
           pg_backend_pid() AS backend_pid,
           (SELECT bool_or(rolreplication OR rolsuper OR rolname = 'rds_replication') FROM pg_roles
            WHERE rolname = current_user
               OR (rolname = 'rds_replication' AND pg_has_role(current_user, oid, 'USAGE'))) AS may_replicate,
           has_database_privilege(current_database(), 'CREATE') AS may_create,
           (SELECT extract(epoch FROM now() - stats_reset) / 86400 FROM pg_stat_database
            WHERE datname = current_database()) AS counted_days
) AS fact
