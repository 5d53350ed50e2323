"""Every bound of the fleet's services: its default, its reason, and what happens at it. Times of events are in ms."""

from __future__ import annotations

from typing import Final

#: Readings of one message, and metrics of one reading: what fits in 64 KiB with room to spare. → dead letter
READINGS_MOST: Final = 500
METRICS_MOST: Final = 64
#: Characters of a metric's name and of a boot id: names, no payload. → dead letter
NAME_MOST: Final = 64
#: The largest seq: what every database counts exactly. → dead letter
SEQ_MOST: Final = 2**63 - 1
#: How old a reading may be when it arrives, and how far ahead a device's clock may run. → dead letter
PAST_MOST: Final = 7 * 86_400_000
AHEAD_MOST: Final = 300_000
#: How long readings are known by (boot, seq) and kept raw: longer than one may be late, so that late data meets all
#: of its hour. → deleted when their series begins another hour
RAW_KEPT: Final = 8 * 86_400_000
#: How long the rollups of a minute are kept; those of an hour stay. → deleted as above
MINUTES_KEPT: Final = 90 * 86_400_000
#: Events of one call of a handler: one transaction for as many devices.
BATCH: Final = 100
#: Rows of one page. → the next page
PAGE: Final = 1_000
#: Age from which a last value is called stale, where the caller names none.
STALE_AFTER: Final = 300_000

#: Length of a window. Lateness: how far behind the newest reading of its device the watermark is.
WINDOW: Final = 60_000
LATENESS: Final = 10_000
#: How long a closed window is kept for late data, which corrects it in a revision. → later than that: left out, counted
WINDOW_KEPT: Final = 3_600_000
#: Windows that tell what is usual for a series, and how many it takes to know. → the oldest leaves
HISTORY: Final = 60
HISTORY_LEAST: Final = 8
#: The robust z-score from which a window is unusual (Iglewicz and Hoaglin).
UNUSUAL: Final = 3.5
#: The score of what differs where nothing ever did: JSON has no infinity.
SCORE_MOST: Final = 1_000.0
#: Accuracy of the quantile sketches: 200 is ±1.33 % of rank, in some 3 KiB at most.
SKETCH: Final = 200

#: Rules of all, and channels of one. → 422
RULES_MOST: Final = 200
CHANNELS_MOST: Final = 8
#: Seconds between two looks for silent devices, at least and at most.
LOOK_LEAST: Final = 0.5
LOOK_MOST: Final = 60.0
#: Seconds by which a look may be late, beside twice the pause; later than that, nobody looked. → no silence is told
LOOK_LATE: Final = 10.0
#: Stretches without a word of any device that a rule of silence remembers. → the oldest counts as silence after all
STILL_MOST: Final = 32
#: Silent devices that one look asks after. → the rest at the next one
LOOK_PAGE: Final = 200
#: Alerts that one call ends: each tells all its channels. → the rest in the next call
END_PAGE: Final = 100
#: The least that a delayed event waits.
AT_ONCE: Final = 0.001
#: Seconds for a mail server or a webhook to answer. → tried again
ASK_WITHIN: Final = 10.0
#: Characters of a comment. → 422
TEXT_MOST: Final = 500

#: Both parts of a shadow as JSON, and its levels of objects and arrays: settings, no files. → rejected, 422
SHADOW_BYTES: Final = 32_768
SHADOW_DEPTH: Final = 8

#: Devices of one registry: what one broker's password file holds. → 422
DEVICES_MOST: Final = 10_000
#: Random bytes of a device's password: as many as nobody guesses.
PASSWORD_BYTES: Final = 18
#: Seconds after which the broker's file is compared with the registry, whatever happened to it.
RECONCILE_EVERY: Final = 60.0
#: Seconds to wait for who else writes the broker's files. → tried again
LOCK_WITHIN: Final = 5.0
#: Seconds between two looks at the lock.
LOCK_LOOK: Final = 0.05

#: Devices of one simulation: file descriptors of one process. → refused
SIMULATED_MOST: Final = 5_000
#: Seconds between two readings that a simulated device can be set to. → it stays as it was
SIMULATED_EVERY: Final = (0.1, 3_600.0)
#: Messages of a simulated device that wait while it is cut off. → the newest is lost, which shows as a gap
SIMULATED_WAITING: Final = 600
#: Readings that a simulated device keeps back for one late batch.
SIMULATED_BATCH: Final = 10
#: Seconds between two tries to connect, and after the last reading for the broker to acknowledge all of them.
CONNECT_AGAIN: Final = 1.0
ACKNOWLEDGED_WITHIN: Final = 60.0
