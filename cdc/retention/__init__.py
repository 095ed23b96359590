"""Streams that never fill up: entries go once all have read them and `transport.retain` is over.

`judging` decides (pure), `entry_trail` counts what is unread (pure), `streams` looks and trims in Redis, `keeper` does
so all the time beside the reader, `watched` is what it knows from one look to the next, and `blocking` whom publishing
waits for. `report` is for `cdc status`; `forgetting` drops who is gone for good.
"""
