"""Related rows: what of other tables belongs to an event's state, so that it is whole.

An event with embeds is published as it is read by query, never as the log brings it: any change of its own row or of a
related one has it read again, with all that belongs to it, and it is published at a mark as every row that is read by
query. Deletes and truncates of its own table are published at their own place in the log as ever.

The way of a change of a related row (order_lines, say, in the event of orders):

1. the stream's thread notes the values of the columns that relate it to its parent, of the old and of the new row
   (`touching`), and holds the position of what counts as published, as for every row that is read again;
2. one transaction of the source finds the rows of the event's table that have such values among what is related to
   them, level by level, and reads those (`cdc.source.parents`, `cdc.snapshot.rereading`);
3. values with more parents than are read at once become a fan-out: a run that is stored together with the position
   that it held, and worked off in chunks behind the live changes (`fan_out`).

Why no older state wins. All reading of one event, of chunks, single rows and fan-outs, is serialised from the snapshot
that a read sees to the mark at which its rows are published (`cdc.snapshot.turns`). Snapshots taken one after the other
see ever more, so what is published later was read later: no upsert of the event carries anything older than those
before it, whatever was committed meanwhile in whichever table. What a read did not see of a change, the reading that
the change itself causes will: its low mark comes behind the change, so that a snapshot which does not see it is told by
`visibility` and read again. For the same reason a read needs no list of the related rows that were changed between its
marks. Of its own rows only deletes and truncates are listed: they alone are published without being read, and a chunk
that did not see one would bring the row back. Across sessions and restarts the order is that of the log's marks: a
session that ended publishes nothing any more, and what the next one reads it reads later.
"""
