-- The columns of a table (empty when it does not exist): name, type, the type's OID and modifier, whether NOT NULL,
-- whether a default fills it, and why it cannot be written: `identity`, `stored` or `virtual` expression, or NULL.
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid::bigint, a.atttypmod, a.attnotnull,
       a.atthasdef OR a.attidentity <> '',
       CASE WHEN a.attgenerated = 's' THEN 'stored' WHEN a.attgenerated <> '' THEN 'virtual'
            WHEN a.attidentity = 'a' THEN 'identity' END
FROM pg_attribute a
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
