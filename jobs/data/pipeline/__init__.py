"""What text and speech share: rows of a source, cache, order, streams, batches."""
