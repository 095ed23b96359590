-- Of each type asked for, what its values' text is made of besides: the labels of enums, by their OIDs, and the attributes
-- of composite types, at any depth. ALTER TYPE ... RENAME VALUE or ADD ATTRIBUTE change values that no log tells of.
WITH RECURSIVE part (asked, type) AS (
    SELECT asked.type, asked.type FROM unnest(%(types)s::oid[]) AS asked (type)
    UNION
    SELECT part.asked, made_of.type
    FROM part
    JOIN pg_type t ON t.oid = part.type
    CROSS JOIN LATERAL (
        SELECT t.typelem WHERE t.typelem <> 0
        UNION ALL SELECT t.typbasetype WHERE t.typbasetype <> 0
        UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
        UNION ALL SELECT a.atttypid FROM pg_attribute a
                  WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped
    ) AS made_of (type)
)
SELECT part.asked::bigint, 'label ' || e.oid, e.enumlabel::text
FROM part JOIN pg_enum e ON e.enumtypid = part.type
UNION ALL
SELECT part.asked::bigint, 'attributes ' || t.oid,
       (SELECT string_agg(a.attnum || ':' || a.atttypid, ' ' ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
FROM part JOIN pg_type t ON t.oid = part.type WHERE t.typtype = 'c'
