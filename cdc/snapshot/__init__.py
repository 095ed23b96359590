"""Rows found by queries and published at marks: initial and requested snapshots, and rows that must be read again.

A chunk takes four steps. Marks are logical messages that come back in the order of the log, and what belongs to the
stream's thread is touched by way of them only:

1. a low mark is emitted; when the stream delivers it, the keys of changed rows are kept from there on;
2. the rows are read in one REPEATABLE READ transaction, together with its snapshot;
3. a high mark is emitted;
4. when the stream delivers it, `visibility` judges the chunk, and its rows are published at the mark.

Since every chunk waits for the log twice, snapshots never run ahead of a stream that is behind.
"""
