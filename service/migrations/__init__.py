"""Alembic history of the store; ``service.store`` upgrades to its head at start."""
