"""What chat is asked, what it answers, and what it tells."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from chat import limits
from chat.rules import Refusal

# PostgreSQL keeps no NUL in a text.
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.ID_MOST, pattern=r"\A[^\x00]*\Z")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.TEXT_MOST, pattern=r"\A[^\x00]*\Z")]
Seq = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
EntryKind = Literal["message", "edited", "deleted", "joined", "left"]


class Send(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Command: say ``text``. ``id`` is the client's: what comes with it again is the same message."""

    id: Id
    text: Text


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Command: message ``seq`` says ``text`` now."""

    id: Id
    seq: Seq
    text: Text


class Delete(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Command: message ``seq`` says nothing any more."""

    id: Id
    seq: Seq


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """To whoever wrote: the number that it has, or why it has none."""

    seq: int = 0
    at: int = 0
    error: Refusal | Literal[""] = ""
    #: Seconds, where it is ``too_fast``.
    retry_after: float = 0.0


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened in a room, and its number there. In a history a message is as it is now."""

    seq: int
    kind: EntryKind
    #: Who did it, and when (milliseconds since 1970).
    author: str
    at: int
    #: The client's own, of what was written.
    id: str = ""
    #: Absent once it is deleted.
    text: str | None = None
    #: Number of the message that this is about.
    of: int = 0
    #: Who joined or left.
    member: str = ""
    #: Number of the newest change of this message.
    edited: int = 0
    deleted: bool = False


class Typing(msgspec.Struct, frozen=True):
    """Somebody writes; to be forgotten after 5 s."""

    user: str


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one user's own devices are told."""

    kind: Literal["read", "joined", "left", "refused"]
    room: str
    #: Up to where is read, and how many messages of others are not.
    read_seq: int = 0
    unread: int = 0
    #: Of what was refused.
    id: str = ""
    error: Refusal | Literal[""] = ""
    retry_after: float = 0.0


class Forget(msgspec.Struct, frozen=True):
    """Of an account that was erased; also the command to oneself to go on with that."""


class Gone(msgspec.Struct, frozen=True):
    """Command to oneself: end the subscriptions of who is no member any more."""

    user: str
