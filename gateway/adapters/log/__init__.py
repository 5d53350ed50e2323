"""The log on Redis or Valkey: what the rest of the gateway may use of it."""

from gateway.adapters.log.dead import DeadLetter
from gateway.adapters.log.group import Groups, GroupState
from gateway.adapters.log.group_lease import Lease, Parked
from gateway.adapters.log.history import Page, Walk
from gateway.adapters.log.keys import AppLog, Counters
from gateway.adapters.log.log import Log
from gateway.adapters.log.promises import Health
from gateway.adapters.log.tail import Batch, Tail

__all__ = [
    "AppLog",
    "Batch",
    "Counters",
    "DeadLetter",
    "GroupState",
    "Groups",
    "Health",
    "Lease",
    "Log",
    "Page",
    "Parked",
    "Tail",
    "Walk",
]
