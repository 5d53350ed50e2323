"""The topics of chat, and who may do what with them."""

from __future__ import annotations

from typing import Final

from chat.events import Delete, Edit, Entry, Forget, Gone, Notice, Send, Typing
from gateway import Topic

#: What a room's members watch. No user has a grant: a subscription token opens the one topic it names. The service
#: itself may look, for the presence that it tells members.
WATCHED: Final = ("messages", "typing")
_ITSELF: Final = ("service:chat.rooms",)

TOPICS: Final = (
    *(
        Topic(pattern=f"chat/rooms/{{room}}/{name}", kind="command", key="{room}", write=("user",), schema=schema)
        for name, schema in (("send", Send), ("edit", Edit), ("delete", Delete))
    ),
    Topic(
        pattern="chat/rooms/{room}/messages", key="{room}", read=_ITSELF, presence=True, schema=Entry
    ),
    Topic(pattern="chat/rooms/{room}/typing", key="{room}", read=_ITSELF, ephemeral=True, schema=Typing),
    Topic(pattern="chat/rooms/{room}/gone", kind="command", key="{room}", schema=Gone),
    Topic(pattern="chat/users/{user}/forget", kind="command", key="{user}", schema=Forget),
    Topic(pattern="chat/users/{user}/notices", key="{user}", read=("user:{user}",), schema=Notice),
)  # fmt: skip


def watched(room: str, name: str = "messages") -> str:
    return f"chat/rooms/{room}/{name}"
