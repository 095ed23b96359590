"""`cdc check`: every precondition of the reader, each with the SQL or command that mends it. Changes nothing."""
