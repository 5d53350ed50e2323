"""``gateway log-credentials``: an account of the log server for each role, and what it may do there."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from gateway import logs
from gateway.adapters.log.rights import ROLES, access_list
from gateway.cli.configuration import Config, gather, password
from gateway.cli.person import person
from gateway.errors import Misconfigured
from gateway.secret_file import write_secret

_audit = logging.getLogger("gateway.audit")


def run(
    folder: Annotated[Path, typer.Argument(help="Where `users.acl` and a password file of each role are written.")],
    config: Config = None,
) -> None:
    """Write the log server's access list: edge, bridge, work and operator, each with keys and commands of its own.

    Start the server with `aclfile FOLDER/users.acl`; give each process log.username and log.password_file. What is
    there is kept: remove a password file for a new one, then `ACL LOAD` as operator. Run it again when applications
    change.
    """
    found = gather(config)
    hashes = {}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for role in ROLES:
            file = folder / f"{role}.password"
            if not file.exists():
                write_secret(file, secrets.token_urlsafe(32) + "\n")
            word = password(f"the account of {role}", str(file))
            if not word:
                raise Misconfigured(f"{file} is empty", "remove it for a new password")
            hashes[role] = hashlib.sha256(word.encode()).hexdigest()
        apps = [log.app for log in found.logs]
        write_secret(folder / "users.acl", access_list(found.settings.gateway.name, apps, hashes))
        if os.geteuid() == 0:
            # The server that root starts is another user by then, the one whom the folder belongs to.
            about = folder.stat()
            os.chown(folder / "users.acl", about.st_uid, about.st_gid)
    except OSError as error:
        raise Misconfigured(f"{folder} is no folder for accounts: {error}", "name another") from None
    logs.configure()
    _audit.info("%s: wrote the access list of the log server in %s, for %d applications", person(), folder, len(apps))
    for role in ROLES:
        print(f"{role}  {folder / f'{role}.password'}")
