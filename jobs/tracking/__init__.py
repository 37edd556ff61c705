"""Progress and metrics: to the scheduler through a heartbeat, to MLflow through a spool."""
