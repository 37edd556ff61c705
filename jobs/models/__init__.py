"""Starting checkpoints: found, checked, loaded; which of their weights may be pruned."""
