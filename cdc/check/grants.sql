-- One row for each column, of those asked for by (schema, table, column), that this role may not read.
SELECT asked.schema, asked.name, asked.column,
       has_schema_privilege(c.relnamespace, 'USAGE')
FROM unnest(%(schemas)s::text[], %(names)s::text[], %(columns)s::text[])
    WITH ORDINALITY AS asked (schema, name, "column", place)
JOIN pg_namespace n ON n.nspname = asked.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = asked.column AND NOT a.attisdropped
WHERE NOT has_schema_privilege(n.oid, 'USAGE') OR NOT has_column_privilege(c.oid, a.attnum, 'SELECT')
ORDER BY asked.place
