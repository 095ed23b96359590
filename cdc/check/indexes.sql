-- The places, from 1 on, of those asked for by (schema, table, columns as JSON) whose columns no index begins with.
SELECT asked.place
FROM unnest(%(schemas)s::text[], %(names)s::text[], %(columns)s::jsonb[])
    WITH ORDINALITY AS asked (schema, name, columns, place)
JOIN pg_namespace n ON n.nspname = asked.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name
WHERE NOT EXISTS (
    SELECT FROM pg_index i
    WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL
      AND (SELECT jsonb_agg(a.attname::text ORDER BY a.attname::text COLLATE "C")
           FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
           WHERE k.place <= jsonb_array_length(asked.columns)) = asked.columns
)
ORDER BY asked.place
