"""One job, or one comparison, as a typed and frozen value."""
