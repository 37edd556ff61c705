"""What crosses the border between service and training: launch, progress, outcome."""
