"""The source's server: what it tells of itself, who runs it, and whether a reader may start there."""
