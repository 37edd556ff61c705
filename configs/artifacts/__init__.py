"""What a job leaves on disk: layout, manifest, masks, weights, comparisons. NumPy; no torch."""
