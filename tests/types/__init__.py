"""Any value of any built-in type comes out of a replica as it went in; Postgres itself is the oracle."""
