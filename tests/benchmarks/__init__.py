"""The project's benchmark: statecast against Postgres' own tools, on the same servers, in the same run."""
