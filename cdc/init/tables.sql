-- Every table of the users' schemas but partitions, which their root covers. Catalog, counters and file sizes only;
-- file sizes, which wait for whoever alters a table, only if they are to be `measured`, else those of the last VACUUM.
WITH RECURSIVE relation AS (
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relrowsecurity
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND n.nspname <> 'information_schema' AND (n.nspname !~ '^pg_' OR c.relpersistence = 't')
), member AS (  -- a table itself and, of a partitioned one, every partition
    SELECT oid AS root, oid AS relid, relkind FROM relation
    UNION
    SELECT member.root, c.oid, c.relkind
    FROM member
    JOIN pg_inherits i ON i.inhparent = member.relid AND member.relkind = 'p'
    JOIN pg_class c ON c.oid = i.inhrelid
), total AS (
    SELECT member.root,
           sum(CASE WHEN %(measured)s THEN coalesce(pg_total_relation_size(c.oid), 0)
                    ELSE (SELECT sum(part.relpages) FROM pg_class part
                          WHERE part.oid IN (c.oid, c.reltoastrelid)
                             OR part.oid IN (SELECT indexrelid FROM pg_index
                                             WHERE indrelid IN (c.oid, c.reltoastrelid)))
                         * current_setting('block_size')::bigint
               END) FILTER (WHERE c.relkind = 'r') AS size_bytes,
           sum(CASE WHEN %(measured)s THEN coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0)
                    ELSE (SELECT greatest(toast.relpages * current_setting('block_size')::bigint,
                                          pg_stat_get_live_tuples(toast.oid) * 2000)
                          FROM pg_class toast WHERE toast.oid = c.reltoastrelid)
               END) AS toast_bytes,
           sum(coalesce(pg_stat_get_tuples_inserted(c.oid), 0) + coalesce(pg_stat_get_tuples_updated(c.oid), 0)
               + coalesce(pg_stat_get_tuples_deleted(c.oid), 0)) AS writes
    FROM member
    JOIN pg_class c ON c.oid = member.relid
    GROUP BY member.root
)
SELECT relation.nspname AS schema, relation.relname AS name, relation.relkind::text AS kind,
       relation.relpersistence::text AS persistence, relation.relrowsecurity AS row_security,
       (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = relation.oid AND d.objsubid = 0
          AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e') AS extension,
       coalesce(total.size_bytes, 0)::bigint AS size_bytes, coalesce(total.toast_bytes, 0)::bigint AS toast_bytes,
       total.writes::bigint,
       (SELECT json_agg(json_build_array(n.nspname, c.relname) ORDER BY i.inhseqno)
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE i.inhrelid = relation.oid) AS parents,
       attribute.stored, attribute.virtual, attribute.toastable,
       (SELECT json_build_array(o.conname, (SELECT json_agg(a.attname ORDER BY k.place)
                                           FROM unnest(o.conkey) WITH ORDINALITY AS k (attnum, place)
                                           JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.attnum))
        FROM pg_constraint o
        WHERE o.conrelid = relation.oid AND o.contype = 'p' AND o.condeferrable) AS deferrable_key,
       (SELECT json_agg(json_build_array(x.relname, (SELECT json_agg(a.attname ORDER BY k.place)
                                                     FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
                                                     JOIN pg_attribute a ON a.attrelid = i.indrelid
                                                                        AND a.attnum = k.attnum
                                                     WHERE k.place <= i.indnkeyatts))
                        ORDER BY i.indnkeyatts, x.relname)
        FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = relation.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
          AND i.indpred IS NULL AND i.indexprs IS NULL) AS unique_indexes,
       (SELECT json_agg(a.attname ORDER BY k.place)
        FROM pg_partitioned_table p
        CROSS JOIN unnest(p.partattrs) WITH ORDINALITY AS k (attnum, place)
        LEFT JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = k.attnum AND k.attnum <> 0
        WHERE p.partrelid = relation.oid) AS partition_columns
FROM relation
JOIN total ON total.root = relation.oid
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(attname::text ORDER BY attnum) FILTER (WHERE attgenerated = 's'), '{}') AS stored,
           coalesce(array_agg(attname::text ORDER BY attnum) FILTER (WHERE attgenerated = 'v'), '{}') AS virtual,
           coalesce(array_agg(attname::text ORDER BY attnum) FILTER (WHERE attstorage IN ('x', 'e')), '{}') AS toastable
    FROM pg_attribute
    WHERE attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
) AS attribute
