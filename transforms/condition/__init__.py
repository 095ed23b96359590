"""Conditions on rows: a small subset of SQL, read into a typed tree of our own that is written as SQL or judged here.

    active AND (region IN ('eu', 'us') OR total >= 100.50) AND NOT name LIKE 'test%' AND deleted_at IS NULL

- `=` `<>` `!=` `<` `<=` `>` `>=`, `[NOT] IN (...)`, `[NOT] BETWEEN ... AND ...`, `[NOT] LIKE`, `IS [NOT] NULL`; a
  boolean column by itself; `AND`, `OR`, `NOT`, parentheses. Each compares one column with literals, nothing else.
- Columns are those of the event, by their names in the source's table, written as in SQL: `"Order Id"` in double
  quotes, others fold to lower case.
- Numbers (smallint to numeric exactly, real and double precision as doubles: no real is equal to 0.1) are compared with
  numbers; numeric, real and double precision also with 'NaN', 'Infinity' and '-Infinity'. Text, char(n) and enums with
  text, boolean with TRUE and FALSE, date with 'YYYY-MM-DD', timestamps with 'YYYY-MM-DD HH:MM:SS' (with a time zone
  only where the literal names one, as in '2026-05-01T00:00:00Z'), uuid with its text. Domains are as what they stand
  on. Columns of other types know IS NULL alone.
- Text, enums, booleans and uuids have no `<` and no BETWEEN: the order of text depends on a collation, that of an enum
  on its definition. Text is equal when its characters are, whatever the column's collation says.
- A condition that is unknown, since a column is NULL, does not hold.

A condition may come from whoever can write to Redis, so its text is never executed: whatever is not in this list is
refused, and what Postgres is given is written from the tree.
"""
