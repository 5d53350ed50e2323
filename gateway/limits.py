"""Every bound of the gateway: its default, its reason, and what happens at it.

Sizes are bytes, times seconds, unless a name says otherwise.
"""

from __future__ import annotations

from typing import Final

# --- topics ---------------------------------------------------------------------------------------------------------

#: Longest topic or filter. SDKs and brokers take more; a longer one costs every event that carries it. → BadTopic
TOPIC_BYTES: Final = 255
#: Deepest topic. The router visits at most 2^depth nodes for one event. → BadTopic
TOPIC_LEVELS: Final = 12
#: Topics whose declaration, and whose filters, are remembered. At the bound the memory starts afresh; the next look-up
#: walks the tree.
TOPIC_CACHE: Final = 50_000
#: Partitions of one application's log: the parallelism of its services. Stored with the log; a change is refused.
PARTITIONS: Final = 8

# --- payloads -------------------------------------------------------------------------------------------------------

#: Largest payload, through every door. → TooLarge, or a dead letter where the door cannot answer
PAYLOAD_BYTES: Final = 64 * 1024
#: Deepest JSON payload. Enough for any document, too little to exhaust a parser's stack. → BadPayload
JSON_DEPTH: Final = 64
#: Digits of a JSON number: beyond 308 it overflows the double that most readers use. → BadPayload
JSON_DIGITS: Final = 308
#: User properties or HTTP headers kept with an event, and their bytes in all. → BadPayload
HEADERS: Final = 32
HEADER_BYTES: Final = 4 * 1024
#: Longest event id or idempotency key. → Refused
ID_BYTES: Final = 128

# --- clients --------------------------------------------------------------------------------------------------------

#: Filters of one client. → error 106
SUBSCRIPTIONS: Final = 128
#: Commands of one WebSocket client, and publishes by HTTP of one principal, in a second and at once; set by `[edge]`. A
#: person or a device says less, a fault in a loop says more. → error 111, 429
CLIENT_MESSAGES: Final = 50
CLIENT_BURST: Final = 100
#: How many times as many commands, beside those it may, a client sends before it is given up. → Close TOO_MANY
FLOOD: Final = 10
#: Principals whose publishes by HTTP are counted, about 2 MB. → the longest quiet begins anew
RATED: Final = 10_000
#: Connections of one user at one edge; set by `[edge]`. A person has a few devices with a few tabs each, and a network
#: that changes doubles them for a moment. → Close CONNECTION_LIMIT, final
USER_CONNECTIONS: Final = 10
#: Seconds for which all of them are believed to be there, once each has answered a ping. SDKs try again sooner; lines
#: that broke meanwhile would keep the user out.
LOOKED_FOR: Final = 3.0
#: Most of each that may be set. → Misconfigured
CLIENT_MESSAGES_MOST: Final = 1_000_000
#: Largest message of a client: a publish of the largest payload in JSON, base64 and all. → close 1009
MESSAGE_BYTES: Final = 128 * 1024
#: Fragments of one WebSocket message. 128 KiB in fragments of 128 bytes pass; without a bound, empty fragments would
#: keep a message open, and us busy, for ever. → close 1008
FRAGMENTS: Final = 1_024
#: Frames and bytes that may wait for one client beside the socket's own buffer. A dashboard that stalls for a second
#: stays; one that stalls for good costs this much, then is closed 3008 and may resume. → Close SLOW
SEND_FRAMES: Final = 4_096
SEND_BYTES: Final = 256 * 1024
#: Send buffer that the kernel keeps per socket; its own default lets 4 MB wait for a reader that is gone.
SOCKET_SEND_BYTES: Final = 32 * 1024
#: Bytes in the transport's buffer at which we stop writing and let frames wait in the queue.
TRANSPORT_BYTES: Final = 64 * 1024
#: Time between two pings, and for the answer to one. → Close NO_PONG
PING_EVERY: Final = 25.0
PONG_WITHIN: Final = 8.0
#: Time from the connection to a valid connect command. → Close STALE, which is final: so longer than an edge takes for
#: ten thousand who come back at once, or those whose command it has not read yet would be gone for good.
CONNECT_WITHIN: Final = 30.0
#: Events of a partition that an edge keeps in memory for recovery, and their bytes. → older ones are read from the log
WINDOW_ENTRIES: Final = 20_000
WINDOW_BYTES: Final = 16 * 1024 * 1024
#: Records in the answers that a window remembers until it changes: a crowd that comes back asks the same. → forgotten
WINDOW_ANSWERED: Final = 100_000
#: Entries and bytes of payload of one read for a crowd that comes back, where the edge has seen that no payload is
#: larger than fits; of what it never saw, `LOG_PAGE` entries. What was read is kept beside the window, with its bounds,
#: for so long after it was last needed.
BACKLOG_PAGE: Final = 8_192
BACKLOG_PAGE_BYTES: Final = 4 * 1024 * 1024
BACKLOG_KEPT: Final = 60.0
#: Such reads that the first client of a crowd may begin; where it takes more, he goes by the chain of his key, until
#: as many others did. One read holds the log server for about 8 ms.
BACKLOG_READS: Final = 2
#: Missed events that one client is given, their bytes, and pages of the log read for them. → recovered: false
RECOVERY_EVENTS: Final = 10_000
RECOVERY_BYTES: Final = 16 * 1024 * 1024
RECOVERY_PAGES: Final = 400
#: Bytes of missed events in one subscribe reply or one page after it; the next page waits until this one has left.
RECOVERY_PAGE_BYTES: Final = 64 * 1024
#: Last values given to one new subscriber of a wildcard. → the rest stays in the log
LAST_VALUES: Final = 10_000
#: Time for a last frame to leave before the socket is cut.
CLOSE_WITHIN: Final = 2.0
#: Commands of one client that wait for an answer of the log. → error 111
CLIENT_PENDING: Final = 64
#: Clients told at once to subscribe again, after a new epoch or other declarations, and the pause before the next ones:
#: 2,000 a second.
RETURNS_AT_ONCE: Final = 100
RETURN_PAUSE: Final = 0.05
#: Bytes of payload offered to clients in one turn of the loop; the rest of a burst follows in the next.
SLICE_BYTES: Final = 64 * 1024
#: Time that most watchers of a slice have to take it, before the next one is offered all the same.
SLICE_WITHIN: Final = 0.05
#: Time for a publish of a client to be answered by the log: SDKs give up after 5 s, and should hear us first.
#: → Unavailable; the same id may be sent again
PUBLISH_WITHIN: Final = 4.0
#: Time that a partition's reader stays after its last watcher left, so that a reload finds it warm.
READER_IDLE: Final = 600.0
#: Longest Last-Event-ID: a position for each partition of a few applications. → 400
CURSOR_BYTES: Final = 4_096
#: Time between two comments on a quiet SSE stream, so that proxies keep it open.
SSE_COMMENT_EVERY: Final = 15.0
#: Time for a subscription's partition readers to be ready. → error 100, temporary
READY_WITHIN: Final = 3.0
#: Time from the connection to a complete HTTP request head, and its bytes. → the connection is closed
HEAD_WITHIN: Final = 10.0
HEAD_BYTES: Final = 16 * 1024
#: Time between SIGTERM and the end of the process: clients are told to come back, a slice at a time.
DRAIN_WITHIN: Final = 5.0

# --- the log --------------------------------------------------------------------------------------------------------

#: Events and bytes of one append call: 500 hold the log server for about 5 ms. What is more waits for the next call.
APPEND_BATCH: Final = 500
APPEND_BYTES: Final = 1024 * 1024
#: Events and bytes that wait for one partition in one process: a tenth of a second at full speed. → Busy
APPEND_QUEUE: Final = 10_000
APPEND_QUEUE_BYTES: Final = 16 * 1024 * 1024
#: How long a connection of the log server may take, and how long it may be silent before a reply is complete.
#: → Unavailable; what was under way is unknown
LOG_CONNECT_WITHIN: Final = 2.0
#: How often at most a cluster's nodes are asked who has which slots.
CLUSTER_AGAIN: Final = 0.1
LOG_REPLY_WITHIN: Final = 5.0
#: How long a replica may take to confirm a batch before callers who do not wait hear Unavailable; others wait on.
REPLICA_WITHIN: Final = 1.0
#: Pauses between tries to reach the log server: they double from the first to the second, with full jitter.
LOG_BACKOFF: Final = (0.02, 1.0)
#: How long a tail waits for news in one read: below half of `LOG_REPLY_WITHIN`, so a silent server is told from a dead.
TAIL_BLOCK: Final = 2.0
#: Entries of one read: 16 MiB of the largest payloads. What is more comes with the next read.
LOG_PAGE: Final = 256
#: Bytes of the newest entries that a tail loads when it starts. Older ones are read when someone asks for them.
TAIL_FILL_BYTES: Final = 16 * 1024 * 1024
#: Events and bytes that one walk along a key may return; it holds the log server for about 3 ms. → complete=False
WALK_EVENTS: Final = 1_000
WALK_BYTES: Final = 4 * 1024 * 1024
#: How often the log's epochs are compared with its server: how long readers may not know of a failover.
EPOCH_EVERY: Final = 1.0
#: How often a partition's top is marked with the time, for retention; entries' own clocks lie.
MARK_EVERY: Final = 10.0
#: Who trims keeps the right to for so long; then another process may. Two at once do no harm.
TRIM_LEASE: Final = 30.0
#: Entries trimmed in one call, about 2 ms of the log server, and calls per partition and pass. The rest goes next time.
TRIM_PAGE: Final = 500
TRIM_PAGES: Final = 200
#: Topics of one partition with a last value. One more → LimitReached
RETAINED_TOPICS: Final = 100_000
#: Events of one partition that are not kept (typing, progress) and may wait for its tails. The oldest go.
LIVE_KEPT: Final = 1_000
#: Dead letters of one partition, and of what no declared topic matches. The oldest go.
DEAD_KEPT: Final = 100_000
DEAD_UNDECLARED_KEPT: Final = 10_000

# --- requests -------------------------------------------------------------------------------------------------------

#: Requests that wait for a reply at one edge. Each holds a connection or a command. → Busy, and nothing is published
REQUESTS: Final = 10_000
#: Longest time that an HTTP client may ask to wait: proxies cut at 60 s. → Refused
WAIT_MOST: Final = 30.0
#: Time for an rpc to be answered: SDKs give up after 5 s by default, and should hear us first. → NoReply
RPC_WITHIN: Final = 4.5
#: Time for a look at what is stored for a repeat, however little it waits. → NoReply
LOOK_WITHIN: Final = 0.25
#: Rpcs of one client that wait for a service, so that they leave room for its other commands. → error 111
CLIENT_REQUESTS: Final = 16
#: Least time that a reply is kept, where the log's retention is shorter: somebody may wait, and ask again.
REPLY_KEPT: Final = 120.0
#: Characters of the error that a reply carries. → cut off; the dead letter has all of it
REPLY_ERROR: Final = 2_000
#: Announcements of replies that may wait for the edges, about 1 MB. → an edge that finds a hole looks at what is stored
REPLIES_ANNOUNCED: Final = 10_000
#: Time that an edge goes on reading them after the last who waited.
REPLIES_IDLE: Final = 60.0

# --- the bridge -----------------------------------------------------------------------------------------------------

#: MQTT messages that no topic claims, kept per second and sender (its topic's first two levels). → counted only
STRAYS_PER_SECOND: Final = 10
#: Senders told apart for that in one second. → strays of further ones are counted only
STRAY_SENDERS: Final = 1_000
#: Unacknowledged messages the broker may send us (MQTT 5, Receive Maximum): back-pressure. → it keeps the rest; what a
#: broker sends nevertheless (rumqttd; Mosquitto 2.0.11 empties its queue at the first PUBACK) is not read before half
#: of them are acknowledged
RECEIVE_MAXIMUM: Final = 1_000

# --- the broker -----------------------------------------------------------------------------------------------------

#: Largest MQTT packet we take, announced in CONNECT. Above every payload bound of ours, so that a payload that is too
#: large arrives and is buried with its reason: what a client announced it cannot take, a broker drops without a word
#: (MQTT-3.1.2-25). → the connection is closed with 0x95
MQTT_PACKET_BYTES: Final = 256 * 1024
#: QoS 0 messages that wait for the log: no Receive Maximum holds them back. → dropped and counted, as QoS 0 allows
MQTT_QOS0_WAITING: Final = 1_000
#: Publishes that wait for the broker's Receive Maximum. → Busy
MQTT_WAITING_PUBLISHES: Final = 1_000
#: Bytes of publishes that the socket has not taken yet. → Busy
MQTT_WRITE_BYTES: Final = 4 * 1024 * 1024
#: Time from opening the socket to SUBACK, and from PINGREQ to any byte. → a new connection
MQTT_ANSWER_WITHIN: Final = 10.0
#: Pause before connection attempt n: anything up to the first times 2^n, at most the second, so that many bridges do
#: not knock together. A connection that lived for the second starts the count again.
MQTT_BACKOFF: Final = (0.1, 10.0)

# --- embedded servers -----------------------------------------------------------------------------------------------

#: Ports of servers that say none: below those that Linux lends to connections (32,768 to 60,999), and macOS too.
SERVER_PORTS: Final = (20_000, 32_768)
#: Time for a server of ours to answer after its start; a long append-only file is read first. → killed, ServerFailed
SERVER_READY_WITHIN: Final = 30.0
#: Time for a server of ours to close its files after SIGTERM. → SIGKILL
SERVER_STOP_WITHIN: Final = 10.0
#: End of a server's log that an error carries. What is before it stays in the file.
SERVER_LOG_TAIL: Final = 2_000
#: Largest MQTT packet of an embedded broker: a payload of 64 KiB with its topic and properties. MQTT 5 clients learn it
#: from CONNACK; who sends more is disconnected (MQTT-3.1.2-24).
BROKER_PACKET_BYTES: Final = 128 * 1024

# --- settings -------------------------------------------------------------------------------------------------------

#: Largest gateway.toml: a thousand topics, and not some other file named by mistake. → Misconfigured
SETTINGS_BYTES: Final = 256 * 1024
#: Most partitions of an application's log: each edge follows each of them on a connection. → Misconfigured
PARTITIONS_MOST: Final = 64
#: Most edges on one machine that share a port: each follows every partition that its clients watch. → Misconfigured
EDGE_PROCESSES_MOST: Final = 64
#: Rows of `[[mqtt.map]]`, each one subscription at the broker; wildcards cover whole fleets. → Misconfigured
MQTT_MAPS: Final = 256
#: Most events an application may ask to keep whatever their age: 64 GiB a partition at 64 KiB each. → Misconfigured
KEEP_MOST: Final = 1_000_000
#: Seconds that events are kept by default, and events of a partition that are kept whatever their age. → trimmed
RETENTION: Final = 86_400.0
KEEP: Final = 10_000
#: How long the broker keeps a bridge's session and messages while it is away, in seconds. → what came later is lost
SESSION_EXPIRY: Final = 7 * 86_400.0

# --- tokens ---------------------------------------------------------------------------------------------------------

#: Longest token: forty claims would fit, and parsing it costs a stranger more than us. → BadToken
TOKEN_BYTES: Final = 4 * 1024
#: Longest `sub`: it becomes a topic level and part of the producer of each event. → BadToken
SUBJECT_BYTES: Final = 128
#: Longest life of a token that we issue. → Refused
TOKEN_LIFE: Final = 366 * 86_400
#: How far another machine's clock may be ahead in `iat` and `nbf`. Beyond → BadToken
CLOCK_LEEWAY: Final = 30
#: Bytes of an HS256 secret: below 32 it is weaker than the hash (RFC 7518, 3.2), above it is some other file.
#: → Misconfigured
SECRET_BYTES: Final = (32, 4 * 1024)

# --- gateway up and the command line --------------------------------------------------------------------------------

#: How long the broker may take to take us in, in seconds. → the check fails.
CHECK_WITHIN: Final = 10.0
#: Lines a second of the live tail. → the event is counted and not shown.
SHOWN_PER_SECOND: Final = 5
#: How often the number of those is told, in seconds.
TOLD_EVERY: Final = 10.0
#: Events read and not yet shown, of all partitions. → reading waits.
READ_AHEAD: Final = 1_000
#: Characters of a payload that a person is shown. → an ellipsis; --json shows all of it.
SHOWN_CHARACTERS: Final = 200
#: Pauses between two tries to come back, in seconds: they double from the first to the second.
SUB_BACKOFF: Final = (0.1, 5.0)
#: How long the edge may take to accept a connection, in seconds. → a new try.
SUB_WITHIN: Final = 10.0
#: How often `up` looks for refused messages, in seconds. → one is told, the others are counted
REFUSED_EVERY: Final = 2.0
#: How often `sub` says that the edge is still away, in seconds.
AWAY_TOLD_EVERY: Final = 10.0
#: How long a connection may be silent, pings included, in seconds. → it is taken for cut.
SUB_SILENT: Final = 40.0
#: How long the tokens last that `up` keeps, in seconds. → start it again.
UP_TOKEN_LIFE: Final = 7 * 86_400
#: Services that `up` starts at a time: two cores are busy with so many, and the first is there the sooner. → the
#: others wait for their turn
UP_AT_ONCE: Final = 3
#: How often the children are looked at, in seconds.
LOOK_EVERY: Final = 0.2
#: Pauses before a dead child is started again, in seconds: they double from the first to the second.
RESTART_PAUSE: Final = (0.2, 10.0)
#: A child that lived so long, in seconds, is started with the first pause again.
CALM_AFTER: Final = 30.0
#: How long the log server of a killed `up` may take to end, in seconds. → `Misconfigured`.
ORPHAN_WITHIN: Final = 15.0
#: How many ports are tried from the wanted one on. → `Misconfigured`.
PORTS_TRIED: Final = 50
#: How much of a dead child's log is looked at for its last line, in bytes.
LAST_WORDS: Final = 2_000
#: Seconds for a request's body of at most `PAYLOAD_BYTES` to come. → 408
BODY_WITHIN: Final = 30.0
#: Seconds for a watcher's socket to take one block of a stream; the send queue bounds what
#: waits behind it. → the connection is cut, and the watcher resumes
STREAM_WITHIN: Final = 30.0

# --- gateway doctor -------------------------------------------------------------------------------------------------

#: Newest entries of a partition, and its last values and dead letters, that are looked at. → `--all` reads everything
DOCTOR_ENTRIES: Final = 2_000
#: Damaged entries that are named, and foreign ones. → counted
DOCTOR_NAMED: Final = 10
#: Characters of one finding, which may hold the error of a handler. → an ellipsis; --json shows all of it
DOCTOR_CHARACTERS: Final = 1_000
#: How long a group that lags is watched for a step of its cursor: an idle one is remembered every quarter of a lease.
DOCTOR_WATCH: Final = 4.0
#: How long a service's database may take to answer. → reported as away
DOCTOR_WITHIN: Final = 10.0
#: Shares of the log server's memory, and of a bound that trimming waits for, from which to warn, and to call it bad.
DOCTOR_FULL: Final = (0.8, 0.95)
#: New epochs of a partition within an hour from which to warn: a server that restarts, or fails over, again and again.
DOCTOR_EPOCHS: Final = 4
#: Seconds after which a mark is old, an event too old to be still in an outbox, and a saga's deadline overdue.
DOCTOR_LATE: Final = 60.0

# --- services -------------------------------------------------------------------------------------------------------

#: Deliveries that a handler may ask for. → Misconfigured
ATTEMPTS_MOST: Final = 100
#: Workers that may die over one event before it is buried unseen, reason crash_loop.
CRASHES: Final = 3
#: Events that wait behind one parked head, in one key. → the head is buried, reason lane_full
LANE: Final = 1_000
#: Parked events of one group in one partition. → reading stops, and the lag shows it
PARKED: Final = 10_000
#: Events read ahead of the handlers, of one group in one partition. → reading waits
PREFETCH: Final = 1_024
#: Longest pause between two deliveries of one event: an unfinished event holds up trimming. → Misconfigured; shortened
#: where a handler asks for it by Later
PAUSE_MOST: Final = 3_600.0
#: Deliveries at one time in one worker, and the most a service may ask for. → the next one waits; Misconfigured
CONCURRENCY: Final = 64
CONCURRENCY_MOST: Final = 1_024
#: Seconds for one delivery, and the most a handler may ask for. → cancelled, a failure; Misconfigured
DELIVERY_WITHIN: Final = 30.0
DELIVERY_MOST: Final = 3_600.0
#: Events of one call of a batch handler. → Misconfigured
BATCH_MOST: Final = 1_000
#: Events that one delivery may emit: they wait in memory until the handler returns. → LimitReached
EMITS: Final = 1_000
#: Events that are claimed ahead of the handlers at full speed: after a crash they run again one by one.
CLAIM: Final = 512
#: How long a lease lasts without a word from its worker, by the log server's clock. → another worker takes it
LEASE: Final = 10.0
#: How often workers tell that they live, and count each other. A lease is renewed with it, well before it ends.
WORKER_BEAT: Final = 1.0
#: Time that running deliveries have when a partition is handed over or the worker ends. → cancelled, delivered again
GRACE: Final = 10.0
#: How often deliveries are looked at for their timeout. Smaller costs more than a late delivery gains.
LOOK_AT_SLOTS: Final = 0.05
#: How long a handler that was cancelled may clean up. → cancelled again
CANCEL_AGAIN: Final = 5.0
#: How long the worker's loop may stand still, in a handler that never awaits. → the process ends with a traceback, and
#: what it was handling is quarantined
STUCK: Final = 60.0
#: How long one slot may run without letting others run, where its handlers never wait.
TURN: Final = 0.005
#: Lines of a traceback that a dead letter keeps: the last.
TRACEBACK_LINES: Final = 40
#: Time in which deliveries that ended wait for each other, to be remembered by one call: they come again after a crash.
SETTLE_EVERY: Final = 0.005
#: How long a worker may be silent before its share goes to others, in seconds.
WORKER_SILENT: Final = 10.0
#: Unfinished entries of one group that trimming waits for, in one partition. → copied to the dead letters, reason
#: retention, then trimmed; an alarm counter rises
UNFINISHED: Final = 125_000

#: Dead letters that one worker tells on `APP/letters` in so many seconds. → the rest is counted in the next one
NOTICES: Final = 20
NOTICES_WITHIN: Final = 60.0

# --- databases of services ------------------------------------------------------------------------------------------

#: Bodies of one SQLite transaction: enough to share a disk's wait, few enough that the first does not wait for long.
SHARED_COMMIT: Final = 128
#: Keys that one statement of `gateway.sql.find` asks for: databases bound its parameters (SQLite 32,766). → several
KEYS_AT_ONCE: Final = 512
#: A statement that holds up an SQLite service's process for longer is named in its log.
STATEMENT_WITHIN: Final = 0.1
#: Time that one process waits for another that writes the same SQLite file. → Busy
DATABASE_BUSY: Final = 10.0
#: Connections of one process to PostgreSQL, and the wait for a free one. → Busy
DATABASE_CONNECTIONS: Final = 16
#: Time for a connection to PostgreSQL, and for one of its answers. → Unavailable
DATABASE_CONNECT_WITHIN: Final = 5.0
DATABASE_ANSWER_WITHIN: Final = 30.0
#: Events that leave an outbox in one go: their rows are forgotten together. What is newer waits.
RELAY_BATCH: Final = 500
#: Who empties an outbox holds that right for so long after its last word; another process then takes over.
RELAY_LEASE: Final = 10.0
#: How often an outbox is looked at for what other processes put in, and its bounds for what waits for its time.
RELAY_EVERY: Final = 0.1
#: Time that the inbox remembers an event: longer than any log keeps one, and replays of it. → it is handled again
INBOX_KEPT: Final = 30 * 86_400.0
#: Claims forgotten in one go, so that nobody waits long behind it, and the time between two goes when none is left.
PURGE_PAGE: Final = 500
PURGE_EVERY: Final = 60.0
#: Pause of an event whose service cannot reach its database, or another server; it is no failure and is not counted.
AWAY_PAUSE: Final = 1.0
#: Longest delay of an event: it waits in a table, not in memory. → Misconfigured
DELAY_MOST: Final = 366 * 86_400.0

# --- dead letters over HTTP -----------------------------------------------------------------------------------------

#: Letters of one page. → Refused
DEAD_PAGE: Final = 500
#: Letters, and bytes of them, that are looked at for one page, where few are what is asked for. → a shorter page
DEAD_SEEN: Final = 10_000
DEAD_SEEN_BYTES: Final = 16 * 1024 * 1024
#: Letters that one request may replay or drop: their addresses wait in memory. → Refused
DEAD_CHANGE: Final = 10_000
#: Slowest rate of that, in letters a second: a line every 10 s keeps proxies from cutting the answer. → Refused
DEAD_RATE_LEAST: Final = 0.1
#: Changes of many letters at one time in one edge, beside everything else it serves. → Busy
DEAD_CHANGES: Final = 4
#: Who was denied and is told to the audit log in one second, each once. → counted, and told with the next one
DENIALS_TOLD: Final = 10

# --- routes of services ---------------------------------------------------------------------------------------------

#: Largest body of a request to a route: a form or a document, not a file. → 413
ROUTE_BODY_BYTES: Final = 1024 * 1024
#: Seconds from the end of a request's body to the head of the answer. → cancelled, 504
ROUTE_WITHIN: Final = 30.0
#: Requests that one process of a service runs at a time. → 429
ROUTES_AT_ONCE: Final = 256
#: Seconds for a service to accept a connection. → 503
FORWARD_CONNECT_WITHIN: Final = 2.0
#: Seconds from the end of a request's body to the head of the answer, and between two parts of it: longer than a
#: service's own patience, so that its words are heard. → 504; a part of an answer is cut
FORWARD_WITHIN: Final = ROUTE_WITHIN + 5.0
#: Requests of one edge that one service has at a time, so that a slow one holds up nobody else's. → 429 after the wait
FORWARDS: Final = 128
FORWARD_WAIT: Final = 1.0
#: Seconds that an idle connection to a service is kept: below the 5 s after which a service closes it, or a request
#: could meet a closing one.
FORWARD_IDLE: Final = 2.0

# --- lists over HTTP ------------------------------------------------------------------------------------------------

#: Items of a page: by default, and at most. → Refused
PAGE: Final = 50
PAGE_MOST: Final = 500
#: Characters of a cursor. → Refused
CURSOR: Final = 1_024

# --- documents ------------------------------------------------------------------------------------------------------

#: Documents for different rights that are kept encoded: there are as many as principals that grants name, each of a
#: megabyte and ten milliseconds for a thousand topics. → made anew
DOCUMENTS: Final = 16

# --- services that ask one another ---------------------------------------------------------------------------------

#: Seconds for all of another service's answer. → TooSlow, and the event comes again
ASK_WITHIN: Final = 10.0
#: Asks of one process that run at a time, each with a connection. The next waits, half of its time at most. → Busy
ASKS_AT_ONCE: Final = 64
#: Bytes of an answer: as much as a route takes. → WrongAnswer
ASK_ANSWER_BYTES: Final = 1024 * 1024
#: Seconds of pause that an answer's Retry-After may ask for.
ASK_AFTER: Final = 300.0

# --- tests of users -------------------------------------------------------------------------------------------------

#: Events that a test can look back on. The oldest go.
TEST_EVENTS: Final = 100_000
#: Dead letters that a test is given, and failures of handlers that are remembered. → the oldest; the newest
TEST_LETTERS: Final = 1_000
#: Seconds for all services to hold their partitions. → DidNotHappen
TEST_READY_WITHIN: Final = 30.0
#: Seconds between two looks at a fact that is waited for.
TEST_LOOK_EVERY: Final = 0.005
#: Partitions: two, so that events of different keys have no order in a test that they would not have elsewhere.
TEST_PARTITIONS: Final = 2
#: Seconds of a lease, and of a worker's beat: a killed service is away for so long, and a cursor is told as often.
TEST_LEASE: Final = 0.4
TEST_BEAT: Final = 0.1
#: Gateways that one test process runs at a time: databases of its log server. → LimitReached
TEST_GATEWAYS: Final = 64
#: Lines of each kind, and characters of a payload, in what a failure tells. The newest, and how many there are.
TEST_LINES: Final = 20
TEST_CHARACTERS: Final = 100

# --- sagas ----------------------------------------------------------------------------------------------------------

#: Steps of one saga: a reader audits the table by eye. → Misconfigured
SAGA_STEPS: Final = 32
#: How often a command is asked again before somebody should look. → `State.stuck`, a warning
SAGA_STUCK: Final = 5
#: Most seconds for the answer to an undo: a machine gives it, where a step may wait for people.
SAGA_UNDO_WITHIN: Final = 60.0
#: Longest pause before a command is asked again, unless its step itself takes longer.
SAGA_PAUSE_MOST: Final = 3_600.0
#: How long the row of a saga that ended is kept, and answers late truth: longer than any log keeps an event, and the
#: inbox its id. → forgotten; a start of the same key begins it anew
SAGA_KEPT: Final = 90 * 86_400.0
#: Rows that each start forgets, so that they are always fewer than what was started meanwhile.
SAGA_FORGETS: Final = 2

#: How often a process looks how late its event loop is, for its metrics, in seconds.
LOOP_LOOKED_AT_EVERY: Final = 0.5
#: How often the worker that empties the outbox counts them, for its metrics.
SAGA_COUNTED_EVERY: Final = 15.0

# --- history and presence -------------------------------------------------------------------------------------------

#: Events of one history answer. → the rest by another one, from the last position
HISTORY_EVENTS: Final = 1_000
#: Bytes of publications in one history answer; the first fits in any case. Less than a client's queue takes beside what
#: it was sent. → the rest by another one
HISTORY_BYTES: Final = 128 * 1024
#: Pages of the log that one history answer may read where neither memory nor a key's chain holds it. → LimitReached
HISTORY_PAGES: Final = 100
#: Seconds that the clients of a silent edge are taken to be there, and how often an edge tells that it lives. → its
#: clients have left
PRESENCE_LEASE: Final = 15.0
PRESENCE_BEAT: Final = 5.0
#: Seconds that a client whose connection ended is still taken to be there: SDKs come back within a few. → it has left
PRESENCE_LINGER: Final = 10.0
#: Clients of one topic that presence knows; an answer with all of them has 100 KB. → the next one watches, and is not
#: listed
PRESENCE_MOST: Final = 1_000
#: Clients let go in one call, about 3 ms of the log server, and changes told in one. → the rest in the next
PRESENCE_SWEEP: Final = 200
PRESENCE_CHANGES: Final = 100

# --- the server API -------------------------------------------------------------------------------------------------

#: Body of one request: a batch of a few large payloads. → 413
API_BODY_BYTES: Final = 512 * 1024
#: Channels of one broadcast and commands of one batch: they are done one after the other. → error 107
API_COMMANDS: Final = 100
#: Channels that one answer names: some hundred KB. → error 106
API_CHANNELS: Final = 10_000
#: Of these, after how many the loop is everybody's for a moment: some milliseconds.
TURN_OF: Final = 500
#: Bytes of the reason with which a server sends a client away: a close frame has 125, two of them the code. → error 107
CLOSE_REASON: Final = 123
#: How often an edge says what it does, and how long it may be silent. → it is not among the nodes of info
EDGE_BEAT: Final = 5.0
EDGE_SILENT: Final = 16.0
#: Connections of one answer, by default and at most: 0.4 MB, with long filters 2 MB. → the rest is counted (left_out)
CONNECTIONS: Final = 100
CONNECTIONS_MOST: Final = 1_000
#: Filters that are told of one connection. → the others are in its count
CONNECTION_FILTERS: Final = 5
#: How long edges may take to say who is connected, and how often is looked. → they are named as missing
SURVEY_WITHIN: Final = 2.0
SURVEY_LOOK: Final = 0.02
#: How long such an answer lies at the log server for an edge that asked and went away. → gone
SURVEY_KEPT: Final = 10.0
#: Such questions at one edge at a time. → Busy
SURVEYS: Final = 4
#: Such questions that one edge answers at a time: one that was away hears many at once. → it is named as missing
SURVEY_ANSWERS: Final = 16
#: Names and versions of SDKs that connections share. → each further one is kept by its connection alone, 0.6 KB at most
SDK_NAMES: Final = 256

# --- rights: keys, revocations, tickets -----------------------------------------------------------------------------

#: Largest file of one public key: an RSA key of 8,192 bits has 1.5 KB. → Misconfigured
KEY_BYTES: Final = 16 * 1024
#: Bits of an RSA key: below it can be factored by those who must not, above it costs every connect. → Misconfigured
RSA_BITS: Final = (2_048, 8_192)
#: Largest body of a request for a ticket or a revocation: a filter and a cursor. → 413
RIGHTS_BODY_BYTES: Final = 8 * 1024
#: Entries of `[[tokens.keys]]`: each a file that is looked at every second, or a server that is asked. → Misconfigured
KEYS: Final = 64
#: Time between two looks at the files of keys, in seconds: how long a key that was taken away is still good.
KEYS_LOOK_EVERY: Final = 1.0
#: API keys, all compared with each one that comes, and the bytes of their file. → Misconfigured
API_KEYS: Final = 256
API_KEYS_BYTES: Final = 64 * 1024
#: A key set: the time for its whole answer, its bytes and its keys. → what was known stays
JWKS_WITHIN: Final = 5.0
JWKS_BYTES: Final = 256 * 1024
JWKS_KEYS: Final = 100
#: How often a key set is fetched; the least pause between two fetches, as a token with an unknown key may ask for one.
JWKS_EVERY: Final = 300.0
JWKS_PAUSE: Final = 10.0
#: The first pause, doubling, until a set was fetched once: an issuer may start at the same moment as we.
JWKS_FIRST_PAUSE: Final = 0.5
#: How long an open connection may outlive its token while its SDK gets another: SDKs ask for one when it is over, and
#: try again after some seconds. → Close EXPIRED
REFRESH_WITHIN: Final = 25.0
#: Revocations in force, about 2 MB in each edge. → LimitReached: take the key out of the key ring instead
REVOCATIONS: Final = 10_000
#: Notices on the control stream that edges may still have to read. The oldest go; who missed some reads all that is in
#: force.
CONTROL_KEPT: Final = 1_000
#: How long a ticket is good for its one use, in seconds: a page opens its EventSource at once. → 401
TICKET_LIFE: Final = 30.0
#: Tickets that one edge gives in a second: 30 s of them are 3 MB at the log server. → Busy
TICKETS_PER_SECOND: Final = 200

# --- MQTT out -------------------------------------------------------------------------------------------------------

#: How long a bridge serves its broker without a word from it, by the log server's clock. → a standby takes over
BRIDGE_LEASE: Final = 2.5
#: How often that is renewed, and the cursors of what left: a killed bridge is replaced within `BRIDGE_LEASE` and this.
BRIDGE_BEAT: Final = 0.5
#: How often a standby asks whether it may serve.
BRIDGE_TRY: Final = 0.25
#: Events of one partition that the broker has not acknowledged: 8 MiB of the largest. Its own Receive Maximum may be
#: lower. → reading waits
MQTT_OUT_WINDOW: Final = 128
#: Pause where the connection's own queue is full, and after an answer of the broker that asks for patience.
MQTT_OUT_BUSY: Final = 0.01
MQTT_OUT_AGAIN: Final = 1.0
#: Messages that left and are known again if the broker sends them back. → an older one becomes an event
MQTT_SENT_KNOWN: Final = 10_000

# --- accounts of devices --------------------------------------------------------------------------------------------

#: Accounts of one password file: a broker reads it whole, in its only thread, at each reload. → LimitReached
BROKER_ACCOUNTS: Final = 100_000
#: Random bytes of a device's password: 144 bits, and no symbol that a shell or a form would change.
DEVICE_PASSWORD_BYTES: Final = 18
#: Seconds for another command to finish with the same folder. → Misconfigured
CREDENTIALS_WITHIN: Final = 10.0
