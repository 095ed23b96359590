-- For each (type OID, modifier) asked for, in that order: its name, and what it stands on when domains are resolved.
SELECT format_type(asked.type, asked.modifier) AS pg_type,
       format_type(base.type, base.modifier) AS base_type,
       base.type::bigint AS base_oid,
       coalesce(element.type, 0)::bigint AS element_oid,
       coalesce(element.delimiter, ',') AS delimiter,
       EXISTS (SELECT FROM pg_type t WHERE t.oid = base.type AND t.typtype = 'e') AS is_enum,
       coalesce((SELECT n.nspname FROM pg_opclass c
                 JOIN pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
                 JOIN pg_amop a ON a.amopfamily = c.opcfamily AND a.amopstrategy = 3  -- equality
                               AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
                 JOIN pg_operator o ON o.oid = a.amopopr AND o.oprname = '='
                 JOIN pg_namespace n ON n.oid = o.oprnamespace
                 WHERE c.opcdefault AND c.opcintype = base.type), 'pg_catalog') AS operators
FROM unnest(%(types)s::oid[], %(modifiers)s::int[]) WITH ORDINALITY AS asked (type, modifier, place)
CROSS JOIN LATERAL (
    WITH RECURSIVE up (type, modifier) AS (
        SELECT asked.type, asked.modifier
        UNION ALL
        SELECT t.typbasetype, t.typtypmod FROM up JOIN pg_type t ON t.oid = up.type WHERE t.typtype = 'd'
    )
    SELECT up.type, up.modifier FROM up LEFT JOIN pg_type t ON t.oid = up.type WHERE t.typtype IS DISTINCT FROM 'd'
) AS base
LEFT JOIN LATERAL (  -- true arrays only: int2vector and oidvector print as `1 2 3`
    WITH RECURSIVE up (type, delimiter) AS (
        SELECT a.typelem, e.typdelim::text
        FROM pg_type a JOIN pg_type e ON e.oid = a.typelem
        WHERE a.oid = base.type AND a.typcategory = 'A' AND a.typlen = -1 AND a.oid NOT IN (22, 30)
        UNION ALL
        SELECT t.typbasetype, up.delimiter FROM up JOIN pg_type t ON t.oid = up.type WHERE t.typtype = 'd'
    )
    SELECT up.type, up.delimiter FROM up JOIN pg_type t ON t.oid = up.type WHERE t.typtype <> 'd'
) AS element ON true
ORDER BY asked.place
