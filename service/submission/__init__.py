"""From what a user names to queued jobs."""
