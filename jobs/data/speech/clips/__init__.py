"""Which clips a source names, which of them are used, and their samples."""
