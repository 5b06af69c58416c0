"""Alembic's entry point; `broker.store.migrate` hands the connection over."""

from alembic import context
from sqlalchemy import Connection

from broker.store.schema import metadata

connection: Connection = context.config.attributes["connection"]
# SQLite can take back what defines tables, too, now that its transactions are
# begun explicitly: a migration takes effect as a whole or not at all.
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
