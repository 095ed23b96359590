"""`cdc init`: reads the catalog of a database that is already in production and writes a starter configuration."""
