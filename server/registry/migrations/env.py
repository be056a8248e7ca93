"""Alembic's entry point: each migration in one transaction, on the engine that the registry opened."""

from alembic import context

from server.registry.tables import Base

with context.config.attributes["engine"].connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
