"""Compare masks and metrics of several jobs."""
