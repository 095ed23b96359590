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

Why no older state wins. Upserts of such an event are only ever rows that were read, by chunks, rereads and fan-outs,
and `visibility` keeps these apart: of two readings of one row, that with the older snapshot is not published behind
the other. So whichever table a change was made in, a row's later entry was read later, and tells nothing older than
those before it. What a reading did not see of a change, the reading that the change itself causes will: its low mark
comes behind the change, so that a snapshot which does not see it is told by `visibility` and read again. Therefore a
change of a related row need not be noted in the windows of chunks. Of the event's own rows, deletes and truncates
are: they are published without being read, and a chunk that did not see one would bring the row back. Across sessions
and restarts the order is that of the marks in the log: a session that has ended publishes nothing any more, and what
the next one reads it reads later.
"""
