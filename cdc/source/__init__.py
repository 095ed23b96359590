"""The source database through SQL: one file for the session, and one for each thing that is asked for over it.

Statements run in autocommit; only a chunk's read and a message's writing take a transaction, and end it at once.
"""
