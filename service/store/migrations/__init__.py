"""Alembic history of the store; ``service.store.store`` upgrades to its head at start."""
