"""A watcher in the raw protocol: one WebSocket, JSON lines, nothing of ours installed but `websockets`.

python examples/watch.py ws://127.0.0.1:8080/connection/websocket 'devices/+/telemetry' [TOKEN]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

from websockets.asyncio.client import connect


async def watch(url: str, topic: str, token: str = "") -> None:
    async with connect(url) as socket:
        # Every command has an id, and its reply has the same. The first one is connect.
        await socket.send(json.dumps({"id": 1, "connect": {"token": token, "name": "watch.py"}}))
        await socket.send(json.dumps({"id": 2, "subscribe": {"channel": topic}}))
        async for frame in socket:
            for line in str(frame).split("\n"):  # One frame may hold several messages.
                message = json.loads(line)
                if not message:
                    await socket.send("{}")  # A ping; who does not answer is taken for dead.
                elif "error" in message:
                    sys.exit(f"refused: {message['error']['message']}")
                elif "pub" in message.get("push", {}):
                    pub = message["push"]["pub"]  # A wildcard's events name their topic in the tags.
                    print(pub["tags"]["topic"], json.dumps(pub["data"]), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(watch(*sys.argv[1:4]))
