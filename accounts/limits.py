"""Every bound of accounts: its default, its reason, and what happens at it."""

from __future__ import annotations

from typing import Final

#: Seconds that an access token lasts: nothing takes it back sooner, unless an operator revokes it. → log in or refresh
ACCESS_LIFE: Final = 600
#: Seconds from one refresh to the next. → log in again
REFRESH_LIFE: Final = 14 * 86_400
#: Seconds from the first use of a refresh token in which it may come again: a browser wakes a tab in the background
#: once a minute, and a tab that was duplicated has its original's token. → all tokens of the login are over
REUSE_WITHIN: Final = 60
#: Tokens that are given for one: tabs that refresh at one moment. → 401, log in again
SUCCESSORS: Final = 10
#: Characters of a password. Short ones are guessed; argon2id hashes any length, but somebody must receive it. → 422
PASSWORD_LEAST: Final = 10
PASSWORD_MOST: Final = 256
#: Octets of an address (RFC 5321, 4.5.3.1.3, without its brackets), characters of a name and of a number. → 422
MAIL_MOST: Final = 254
NAME_MOST: Final = 100
PHONE_MOST: Final = 16
#: Failed logins that cost nothing, from one place for one address, for one address, and from one place. The second is
#: larger than the first, or whoever knows an address could lock its owner out. → 429 with Retry-After
FREE_PAIR: Final = 5
FREE_MAIL: Final = 100
FREE_PLACE: Final = 100
#: The longest wait after a failed login, and the seconds after which failures are forgotten.
WAIT_MOST: Final = 900
FAILURES_KEPT: Final = 3_600
#: Passwords that one process hashes at a time: by default 64 MiB and about 50 ms of a core each. → the next waits
HASHES: Final = 2
#: Rows that one login removes of what is over, so that tables do not grow. → the next login goes on
PURGE_PAGE: Final = 100
