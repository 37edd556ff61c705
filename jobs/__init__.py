"""Torch side: one process per rank. Never imports cluster, service or Ray."""
