"""Alembic's entry point: all pending migrations in one transaction, on the engine that the registry opened."""

from alembic import context

from server.registry.tables import Base

with context.config.attributes["engine"].begin() as connection:
    if connection.dialect.name == "sqlite":
        # Python's driver begins a transaction before changes of data, not before changes of tables.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    context.configure(connection=connection, target_metadata=Base.metadata)
    context.run_migrations()
