"""The log on Redis or Valkey: what the rest of the gateway may use of it."""

from gateway.adapters.log.dead import DeadLetter
from gateway.adapters.log.group import Groups, GroupState
from gateway.adapters.log.group_lease import Lease, Parked
from gateway.adapters.log.history import Page, Walk
from gateway.adapters.log.keys import AppLog, Counters
from gateway.adapters.log.log import Log
from gateway.adapters.log.promises import Health
from gateway.adapters.log.replies import Announcements, News, Replies, Reply, Request
from gateway.adapters.log.tail import Batch, Tail

__all__ = [
    "Announcements",
    "AppLog",
    "Batch",
    "Counters",
    "DeadLetter",
    "GroupState",
    "Groups",
    "Health",
    "Lease",
    "Log",
    "News",
    "Page",
    "Parked",
    "Replies",
    "Reply",
    "Request",
    "Tail",
    "Walk",
]
