"""Ray side: how an attempt gets its gang of ranks."""
