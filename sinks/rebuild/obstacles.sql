-- What hangs on a table, or is said of it, that the one in its place would not have: what it is, and what to do.
WITH live AS (SELECT * FROM pg_class WHERE oid = to_regclass(%s)),
dependent AS (
    SELECT DISTINCT d.classid, d.objid
    FROM live, pg_depend d
    WHERE d.deptype IN ('n', 'x')
      AND ((d.refclassid = 'pg_class'::regclass AND d.refobjid = live.oid)
           OR (d.refclassid = 'pg_type'::regclass
               AND d.refobjid IN (live.reltype, (SELECT typarray FROM pg_type WHERE oid = live.reltype))))
)
SELECT 'role ' || quote_ident(current_user) || ' does not own it',
       'GRANT ' || quote_ident(pg_get_userbyid(relowner)) || ' TO ' || quote_ident(current_user) || ';'
FROM live WHERE NOT pg_has_role(relowner, 'USAGE')
UNION ALL
SELECT 'it is unlogged, so that a crash empties it', 'ALTER TABLE ' || oid::regclass || ' SET LOGGED;'
FROM live WHERE relpersistence <> 'p'
UNION ALL
SELECT 'it is partitioned, a partition, or inherits', 'Rebuild it by hand, or map the event to a table of its own.'
FROM live
WHERE relkind <> 'r' OR relispartition OR EXISTS (SELECT FROM pg_inherits WHERE live.oid IN (inhrelid, inhparent))
UNION ALL
SELECT 'it has row-level security', 'ALTER TABLE ' || oid::regclass || ' DISABLE ROW LEVEL SECURITY; drop its policies.'
FROM live WHERE relrowsecurity OR relforcerowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = live.oid)
UNION ALL
SELECT 'rule ' || quote_ident(rulename) || ' stands on it', 'DROP RULE ' || quote_ident(rulename) || ' ON ' || ev_class::regclass || ';'
FROM live JOIN pg_rewrite ON ev_class = live.oid
UNION ALL
SELECT 'foreign key ' || quote_ident(conname) || CASE WHEN conrelid = live.oid THEN ' of it points to ' || confrelid::regclass
                                                      ELSE ' of ' || conrelid::regclass || ' points to it' END,
       'ALTER TABLE ' || conrelid::regclass || ' DROP CONSTRAINT ' || quote_ident(conname) || ';'
FROM live JOIN pg_constraint ON contype = 'f' AND live.oid IN (conrelid, confrelid) AND conparentid = 0
UNION ALL
SELECT 'sequence ' || s.oid::regclass || ' belongs to a column of it', 'ALTER SEQUENCE ' || s.oid::regclass || ' OWNED BY NONE;'
FROM live JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = live.oid AND d.deptype = 'a'
          JOIN pg_class s ON d.classid = 'pg_class'::regclass AND s.oid = d.objid AND s.relkind = 'S'
UNION ALL
SELECT 'publication ' || quote_ident(pubname) || ' names it',
       'ALTER PUBLICATION ' || quote_ident(pubname) || ' DROP TABLE ' || live.oid::regclass || ';'
FROM live JOIN pg_publication_rel ON prrelid = live.oid JOIN pg_publication p ON p.oid = prpubid
UNION ALL
SELECT 'view ' || v.oid::regclass || ' reads it and belongs to ' || pg_get_userbyid(v.relowner),
       'ALTER VIEW ' || v.oid::regclass || ' OWNER TO ' || quote_ident(current_user) || ';'
FROM dependent JOIN pg_rewrite r ON classid = 'pg_rewrite'::regclass AND r.oid = objid JOIN pg_class v ON v.oid = ev_class
WHERE v.relkind = 'v' AND NOT pg_has_role(v.relowner, 'USAGE')
UNION ALL
SELECT 'materialized view ' || v.oid::regclass || ' reads it', 'DROP MATERIALIZED VIEW ' || v.oid::regclass || ';'
FROM dependent JOIN pg_rewrite r ON classid = 'pg_rewrite'::regclass AND r.oid = objid JOIN pg_class v ON v.oid = ev_class
WHERE v.relkind = 'm'
UNION ALL
SELECT pg_describe_object(classid, objid, 0) || ' depends on it', 'Drop it.'
FROM live, dependent
WHERE NOT CASE classid
    WHEN 'pg_constraint'::regclass THEN
        EXISTS (SELECT FROM pg_constraint WHERE oid = objid AND (contype = 'f' OR conrelid = live.oid))
    WHEN 'pg_rewrite'::regclass THEN
        EXISTS (SELECT FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class
                WHERE r.oid = objid AND (v.relkind IN ('v', 'm') OR v.oid = live.oid))
    WHEN 'pg_attrdef'::regclass THEN EXISTS (SELECT FROM pg_attrdef WHERE oid = objid AND adrelid = live.oid)
    WHEN 'pg_trigger'::regclass THEN EXISTS (SELECT FROM pg_trigger WHERE oid = objid AND tgrelid = live.oid)
    WHEN 'pg_policy'::regclass THEN EXISTS (SELECT FROM pg_policy WHERE oid = objid AND polrelid = live.oid)
    WHEN 'pg_class'::regclass THEN EXISTS (SELECT FROM pg_index WHERE indexrelid = objid AND indrelid = live.oid)
    ELSE false
END
ORDER BY 1
