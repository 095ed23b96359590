-- The indexes of a table but that of its primary key: name, the names of the columns it needs, the definition of the
-- constraint that it stands for, or NULL, its own definition, and how that begins.
SELECT c.relname,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = i.indrelid
               AND (a.attnum = ANY(i.indkey::int2[])
                    OR a.attnum IN (SELECT refobjsubid FROM pg_depend
                                    WHERE refclassid = 'pg_class'::regclass AND refobjid = i.indrelid
                                      AND ((classid = 'pg_class'::regclass AND objid = i.indexrelid)
                                           OR (classid = 'pg_constraint'::regclass AND objid = k.oid))))),
       pg_get_constraintdef(k.oid),
       pg_get_indexdef(i.indexrelid),
       'CREATE ' || CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END || 'INDEX ' || quote_ident(c.relname) || ' ON '
           || quote_ident(n.nspname) || '.' || quote_ident(t.relname) || ' '
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('u', 'x')
WHERE i.indrelid = to_regclass(%s) AND NOT i.indisprimary AND i.indisvalid
ORDER BY c.relname
