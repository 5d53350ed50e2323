"""Every bound of chat: its default, its reason, and what happens at it."""

from __future__ import annotations

from typing import Final

#: Characters of a message: longer ones are documents. → 107
TEXT_MOST: Final = 4_000
#: Characters of a client's own id of what it sends; a UUID has 36. → 107
ID_MOST: Final = 64
#: Characters of a room's name, and of a key that makes its creation repeatable. → 422
NAME_MOST: Final = 100
KEY_MOST: Final = 64
#: Milliseconds for which the same id is the same message: longer than any outbox waits. → it is a new message
REPEAT_WITHIN: Final = 24 * 3_600_000
#: Writes in a row by one member of one room, and milliseconds until there is room for another: faster than anybody
#: types, slower than a loop. → ``too_fast`` with ``retry_after``
BURST: Final = 20
EVERY: Final = 500
#: Rooms that a user makes, joins or is the one to open for others, in a row, and milliseconds until another: enough to
#: invite a team at once, too little to fill others' lists. What changes nothing costs nothing. → 429, ``Retry-After``
MOVES: Final = 60
MOVE_EVERY: Final = 10_000
#: Rooms that one event takes somebody out of whose account was erased, in one transaction. → the rest by the next event
FORGET_PAGE: Final = 50
#: Milliseconds between two signs that somebody types: who watches forgets one after 5 s. → the second is dropped
TYPING_EVERY: Final = 3_000
#: Seconds that a subscription token lasts: so long may who was removed come back with one that he had. → the SDK asks
#: for the next
TOKEN_LIFE: Final = 60
#: Unread messages that are counted: nobody needs to know how many more. → this number
UNREAD_MOST: Final = 1_000
#: Rooms of one user, and members of one room: lists of them are read whole here and there. → 429
ROOMS_MOST: Final = 1_000
MEMBERS_MOST: Final = 10_000
