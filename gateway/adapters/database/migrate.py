"""How a service's tables come to be: the gateway's own by its migrations, the service's by its own or as they stand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

import msgspec
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData

from gateway.errors import Misconfigured

_HERE: Final = Path(__file__).resolve().parent


class Schema(msgspec.Struct, frozen=True):
    """What a service declares of its tables."""

    #: Made where they are absent, and never changed; a service whose tables change has ``migrations``.
    tables: MetaData | None = None
    #: A package or a folder of Alembic revisions, such as ``ecommerce.orders.migrations``.
    migrations: str = ""

    def bring_up(self, connection: Connection) -> None:
        """Run what has not run yet, in the transaction of ``connection``; raises :class:`Misconfigured`."""
        try:
            command.upgrade(self.config(connection), "heads")
        except CommandError as error:
            # Among others: the database is newer than this program.
            raise Misconfigured(
                f"the tables cannot be brought up to date: {error}", "run the program that they were made for"
            ) from None
        if self.tables is not None and not self.migrations:
            self.tables.create_all(connection)

    def write(self, connection: Connection, message: str) -> Path:
        """Write a new revision with what ``tables`` have and the database does not; returns its file."""
        if not self.migrations:
            raise Misconfigured("the service has no migrations", 'write Database(…, migrations="package.migrations")')
        config, folder = self.config(connection), _folder(self.migrations)
        scripts = ScriptDirectory.from_config(config)
        ours = {one.revision for one in scripts.walk_revisions() if Path(one.path).parent == folder}
        heads = [head for head in scripts.get_heads() if head in ours]
        made = command.revision(
            config,
            message,
            autogenerate=True,
            head=heads[0] if heads else "base",
            splice=False,
            version_path=str(folder),
        )
        one = made[0] if isinstance(made, list) else made
        if one is None:
            raise Misconfigured("no revision was written", "see what Alembic said")
        return Path(one.path)

    def config(self, connection: Connection) -> Config:
        """Return Alembic's configuration, for ``connection``."""
        folders = [_HERE / "versions"]
        if self.migrations:
            folders.append(_folder(self.migrations))
        config = Config(attributes={"connection": connection, "tables": self.tables})
        config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", "\n".join(map(str, folders)).replace("%", "%%"))
        return config


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name).resolve()
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    for found in spec.submodule_search_locations or () if spec else ():
        return Path(found).resolve()
    raise Misconfigured(f"there are no migrations in {name!r}", "name a package or a folder of Alembic revisions")
