"""What Alembic runs: the revisions, in the transaction of whoever opens the database."""

from alembic import context

from gateway.adapters.database.tables import TABLES

connection = context.config.attributes["connection"]
wanted = context.config.attributes["tables"]
context.configure(
    connection=connection,
    # The gateway's own tables are not the service's to change.
    target_metadata=wanted,
    include_name=lambda name, type, _: type != "table" or name not in TABLES.tables,
    # SQLite changes a column by copying its table.
    render_as_batch=connection.dialect.name == "sqlite",
    version_table="gateway_revisions",
)
context.run_migrations()
