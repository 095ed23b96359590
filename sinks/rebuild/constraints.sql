-- The CHECK constraints of a table that another one lacks, though it has their columns: name and definition.
SELECT c.conname, pg_get_constraintdef(c.oid)
FROM pg_constraint c
WHERE c.conrelid = to_regclass(%s) AND c.contype = 'c'
  AND NOT EXISTS (SELECT FROM pg_constraint o WHERE o.conrelid = to_regclass(%s) AND o.conname = c.conname)
  AND NOT EXISTS (
      SELECT FROM pg_attribute a
      WHERE a.attrelid = c.conrelid AND a.attnum = ANY(c.conkey)
        AND NOT EXISTS (SELECT FROM pg_attribute o
                        WHERE o.attrelid = to_regclass(%s) AND o.attname = a.attname AND NOT o.attisdropped))
ORDER BY 1
