"""The log on Redis or Valkey: what the rest of the gateway may use of it."""

from gateway.adapters.log.bridge_lease import BridgeLease
from gateway.adapters.log.control import REVOKED, Control, Notice, Notices, revocation
from gateway.adapters.log.dead import DeadLetter
from gateway.adapters.log.entry import Moved
from gateway.adapters.log.group import Groups, GroupState
from gateway.adapters.log.group_lease import Lease, Parked
from gateway.adapters.log.history import Page, Walk
from gateway.adapters.log.keys import REPLAYS, AppLog, Counters
from gateway.adapters.log.log import Log
from gateway.adapters.log.presence import Change, Presence
from gateway.adapters.log.promises import Health
from gateway.adapters.log.replies import Announcements, News, Replies, Reply, Request
from gateway.adapters.log.tail import Batch, Tail
from gateway.adapters.log.tickets import Ticket, Tickets

__all__ = [
    "REPLAYS",
    "REVOKED",
    "Announcements",
    "AppLog",
    "Batch",
    "BridgeLease",
    "Change",
    "Control",
    "Counters",
    "DeadLetter",
    "GroupState",
    "Groups",
    "Health",
    "Lease",
    "Log",
    "Moved",
    "News",
    "Notice",
    "Notices",
    "Page",
    "Parked",
    "Presence",
    "Replies",
    "Reply",
    "Request",
    "Tail",
    "Ticket",
    "Tickets",
    "Walk",
    "revocation",
]
