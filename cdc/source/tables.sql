-- One row for each of the tables asked for by (schema, name). Catalog and counters only: functions that tell sizes and
-- pg_partition_tree lock the table, and would wait for an ALTER TABLE in hand.
WITH RECURSIVE asked AS (
    SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS t (schema, name)
), relation AS (
    SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.relpersistence::text AS persistence,
           c.relreplident::text AS identity
    FROM asked
    JOIN pg_namespace n ON n.nspname = asked.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name
), branch AS (  -- a table itself and, of a partitioned one, every partition at any depth
    SELECT oid AS root, oid, kind FROM relation
    UNION
    SELECT branch.root, c.oid, c.relkind::text
    FROM branch
    JOIN pg_inherits i ON i.inhparent = branch.oid AND branch.kind = 'p'
    JOIN pg_class c ON c.oid = i.inhrelid
), member AS (
    SELECT relation.oid AS root, c.oid, c.relkind, c.relreplident, c.relpersistence, c.relname, n.nspname,
           -- by the last ANALYZE, or by the counters, which a table that was never analyzed and a growing one need
           greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0) AS reltuples
    FROM branch
    JOIN relation ON relation.oid = branch.root
    JOIN pg_class c ON c.oid = branch.oid
    JOIN pg_namespace n ON n.oid = c.relnamespace
), ancestor AS (  -- what a table is a partition of, at any depth
    SELECT relation.oid AS leaf, i.inhparent AS oid
    FROM relation JOIN pg_class c ON c.oid = relation.oid AND c.relispartition
    JOIN pg_inherits i ON i.inhrelid = relation.oid
    UNION
    SELECT ancestor.leaf, i.inhparent
    FROM ancestor JOIN pg_class c ON c.oid = ancestor.oid AND c.relispartition
    JOIN pg_inherits i ON i.inhrelid = ancestor.oid
), child AS (  -- what inherits from a table that is not partitioned, at any depth
    SELECT relation.oid AS root, i.inhrelid AS oid
    FROM relation JOIN pg_inherits i ON i.inhparent = relation.oid
    WHERE relation.kind = 'r'
    UNION
    SELECT child.root, i.inhrelid FROM child JOIN pg_inherits i ON i.inhparent = child.oid
), key_index AS (  -- unique indexes that may name a row
    SELECT i.indrelid, i.indisprimary, i.indisreplident,
           (SELECT array_agg(a.attname::text ORDER BY k.place)
            FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE k.place <= i.indnkeyatts) AS columns
    FROM pg_index i
    WHERE i.indrelid IN (SELECT oid FROM member)
      AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
), identity AS (
    SELECT member.oid, member.root, member.nspname, member.relname, member.relkind,
           CASE member.relreplident
               WHEN 'd' THEN (SELECT columns FROM key_index WHERE indrelid = member.oid AND indisprimary)
               WHEN 'i' THEN (SELECT columns FROM key_index WHERE indrelid = member.oid AND indisreplident)
               WHEN 'f' THEN (SELECT array_agg(attname::text) FROM pg_attribute
                              WHERE attrelid = member.oid AND attnum > 0 AND NOT attisdropped)
           END AS columns
    FROM member
)
SELECT relation.oid::bigint, relation.schema, relation.name, relation.kind, relation.persistence, relation.identity,
       coalesce((SELECT columns FROM key_index WHERE indrelid = relation.oid AND indisprimary), '{}') AS primary_key,
       coalesce((SELECT json_agg(columns) FROM key_index WHERE indrelid = relation.oid), '[]') AS unique_keys,
       coalesce((SELECT columns FROM identity WHERE identity.oid = relation.oid AND root = relation.oid), '{}') AS identity_columns,
       coalesce((SELECT json_agg(json_build_array(nspname, relname)) FROM identity
                 WHERE root = relation.oid AND identity.oid <> root AND relkind <> 'p' AND columns IS NULL),
                '[]') AS leaves_without_identity,
       coalesce((SELECT json_agg(json_build_array(nspname, relname) ORDER BY nspname, relname) FROM member
                 WHERE root = relation.oid AND member.oid <> root
                   AND (relpersistence <> 'p' OR relkind NOT IN ('r', 'p'))), '[]') AS leaves_without_log,
       coalesce((SELECT json_agg(json_build_array(n.nspname, c.relname) ORDER BY n.nspname, c.relname)
                 FROM ancestor JOIN pg_class c ON c.oid = ancestor.oid JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE ancestor.leaf = relation.oid), '[]') AS ancestors,
       coalesce((SELECT json_agg(json_build_array(nspname, relname, columns) ORDER BY nspname, relname) FROM identity
                 WHERE root = relation.oid AND identity.oid <> root AND relkind <> 'p' AND columns IS NOT NULL),
                '[]') AS leaf_identities,
       coalesce((SELECT json_agg(json_build_array(nspname, relname) ORDER BY nspname, relname) FROM member
                 WHERE root = relation.oid AND relkind <> 'p' AND relreplident <> 'f'), '[]') AS without_old_rows,
       coalesce((SELECT json_agg(json_build_array(n.nspname, c.relname) ORDER BY n.nspname, c.relname)
                 FROM child JOIN pg_class c ON c.oid = child.oid AND c.relkind = 'r'
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE child.root = relation.oid), '[]') AS children,
       (SELECT sum(reltuples)::bigint FROM member WHERE root = relation.oid AND relkind <> 'p') AS estimated_rows,
       (SELECT json_agg(json_build_object('name', attname, 'number', attnum, 'type', atttypid::bigint, 'modifier', atttypmod,
                                          'not_null', attnotnull, 'generated', attgenerated <> '') ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = relation.oid AND attnum > 0 AND NOT attisdropped) AS columns
FROM relation
