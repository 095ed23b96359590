"""Child tables: an embed that a sink keeps as rows of a table of its own instead of as a jsonb column.

`order = { table = "replica.orders", embeds = { lines = "replica.order_lines" } }`. The table's columns are the parent's
key, each named `<event type>_<key>`, and the embed's fields with the source's types; embeds within are jsonb columns.
Its primary key is the parent's key and, where the embed is an array, the embed's key: the fields that tell its rows
apart, or where it has none `ordinal`, the place in the array from 1 on.

Whatever writes a parent's row replaces the rows of its children in the same transaction, so that neither is ever seen
without the other: all rows of all parents of a batch go with one statement a table, and come with one. There are no
foreign keys.

Rows are deleted and inserted anew, also equal ones: 10,000 parents of 5 rows take 0.3 s of CPU in batches of 2,000, and
12 MB of WAL. One statement that deletes what is gone and upserts what differs writes 3 to 5 MB where little does, for
twice the CPU, and four times of it in batches of one parent (planning). It also inserts before it deletes, which unique
indexes of a consumer's own do not bear.
"""
