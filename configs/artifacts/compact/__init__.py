"""The compact form of a sparse checkpoint: a bit per position and the values that are left."""
