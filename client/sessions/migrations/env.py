"""Alembic's entry point: all pending migrations in one transaction, on the engine that the store opened."""

from alembic import context

from client.sessions.tables import Base

with context.config.attributes["engine"].connect() as connection:
    # Changing a table means copying it and dropping the old one, which its referrers must not prevent. The
    # connection is not used again, so that no other finds itself without foreign keys.
    connection.detach()
    connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
    # Python's driver begins a transaction before changes of data, not before changes of tables.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    context.configure(connection=connection, target_metadata=Base.metadata)
    context.run_migrations()
    if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise RuntimeError(f"a migration broke a reference: {broken}")
    connection.commit()
