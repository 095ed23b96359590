"""Rebuilding a replica table: a second one, its shadow, is filled beside it and takes its place when it is complete.

`cdc-sink rebuild` only writes down what is wanted (a row of `cdc.rebuild`); the sink's worker does the work, since
whoever changes a replica must hold its checkpoint, and must go on applying changes meanwhile. Each step is one
transaction, so that a worker that is killed leaves a step done or not begun:

1. asked: the command has found nothing in the way, and made and undone the shadow for a try.
2. filling: the worker makes the shadow beside the table, registers it in `cdc.replica`, and asks the reader for a
   snapshot for this sink alone. From that run's begin on the shadow takes all that a replica takes; the run's rows go
   to it alone, everything else to both tables.
3. filled: the run has ended. Both tables take every change until the swap, which is tried again and again.
4. done: names, privileges, triggers and views are taken over in one transaction under the checkpoint's lock.

A call-off, and whatever the shadow cannot take, end it early: `called off`, `failed`. The shadow is dropped in the
transaction that says so; the table itself was never touched.

Rejected: the swap at the run's end in the batch's own transaction, which a reader's lock would roll back with the
batch, and the stream would stand still; the command doing the work, which would be a second writer.
"""
