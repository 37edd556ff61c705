"""Alembic's entry: runs the history over the connection that ``service.store.store`` hands in. Never run on its own."""

from alembic import context

from prunus.service.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
