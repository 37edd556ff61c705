"""HTTP API, command line, queue, decisions, fetch. Neither torch nor Ray is imported here."""
