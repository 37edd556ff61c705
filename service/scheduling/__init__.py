"""What happens next to each job: read, decide, act, write."""
