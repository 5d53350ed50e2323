"""What the shop is measured against: one row and one commit behind one route, as a process (``PORT FILE SECRET``)."""

from __future__ import annotations

import sqlite3
import sys
import uuid

import jwt
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def main(port: int, file: str, secret: str) -> None:
    db = sqlite3.connect(file, isolation_level=None)
    for line in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE orders (id, user, body)"):
        db.execute(line)

    async def place(request: Request) -> Response:
        claims = jwt.decode(request.headers["authorization"].removeprefix("Bearer "), secret, algorithms=["HS256"])
        order, body = uuid.uuid4().hex, msgspec.json.decode(await request.body())
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO orders VALUES (?, ?, ?)", (order, claims["sub"], msgspec.json.encode(body)))
        db.execute("COMMIT")
        return Response(msgspec.json.encode({"order": order}), 202, media_type="application/json")

    app = Starlette(routes=[Route("/ecommerce/orders", place, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
