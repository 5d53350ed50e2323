"""The doctor: what is wrong with a running gateway, and what to do about it; it looks, and changes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Literal

import msgspec

from gateway import limits
from gateway.adapters.log import AppLog
from gateway.adapters.log.group import GroupState
from gateway.adapters.log.inspection import Inspection, PartitionState, Scan, ServerState
from gateway.core.event import Partition
from gateway.errors import GatewayError, NotAvailable, Unavailable
from gateway.service import Service

_SERVER_STAYS_AWAY = (
    "start it; if it refuses to read its files: `redis-check-aof FILE` (valkey-check-aof) of a copy tells where they "
    "break, and --fix drops everything behind that place"
)
#: Keeps what is up to ARGV[1]. Valkey 9 lets no XSETID go back behind what was deleted, so XDEL heals nothing there.
_COPY = (
    "local to = KEYS[1]..':kept' "
    "for _, e in ipairs(redis.call('XRANGE', KEYS[1], '-', ARGV[1])) do redis.call('XADD', to, e[1], unpack(e[2])) end "
    "return redis.call('RENAME', to, KEYS[1])"
)


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. ``remedy`` is empty where it is well."""

    checked: str
    state: Literal["ok", "warn", "bad"]
    found: str
    remedy: str = ""


class Patient(msgspec.Struct, frozen=True):
    """What is looked at."""

    log_url: str
    gateway: str
    partitions: int
    logs: Sequence[AppLog]
    #: Group → service, and the URLs of their databases.
    services: Mapping[str, Service]
    databases: Mapping[str, str]
    #: The word of the broker's bridges, see `gateway.bridge.process.lease_name`; empty where no topic needs one.
    bridge: str
    #: Entries of a partition that are read.
    most: int = limits.DOCTOR_ENTRIES


def ok(checked: str, found: str) -> Finding:
    return Finding(checked, "ok", found)


async def examine(patient: Patient) -> AsyncIterator[Finding]:
    """Yield what is found, as it is found."""
    look: Inspection | None = None
    try:
        look = await Inspection.open(patient.log_url, patient.gateway)
        async for finding in _log(look, patient):
            yield finding
    except Unavailable as error:
        yield Finding("log server", "bad", str(error), _SERVER_STAYS_AWAY)
    except GatewayError as error:
        yield Finding("log server", "bad", str(error), "see its url and its rights")
    finally:
        if look is not None:
            await look.close()
    for group, url in patient.databases.items():
        for finding in await _database(group, patient.services[group], url):
            yield finding


async def _log(look: Inspection, patient: Patient) -> AsyncIterator[Finding]:
    try:
        await look.promised(patient.logs)
    except GatewayError as error:
        yield Finding("log server", "bad", str(error), "processes that start now refuse to")
    nodes = await look.servers()
    for server in nodes:
        if isinstance(server, Unavailable):
            yield Finding("log server", "bad", str(server), _SERVER_STAYS_AWAY)
            continue
        for finding in of_server(server):
            named = finding.checked if len(nodes) == 1 else f"{finding.checked} {server.place}"
            yield msgspec.structs.replace(finding, checked=named)
    states, away = await _states(look, patient)
    if away:
        remedy = "nothing is stored of what belongs there, and nothing below speaks of it"
        yield Finding("partitions", "bad", f"on a node that is away: {', '.join(away)}", remedy)
    for log in patient.logs:
        mine = [state for state in states if state.partition in log.partitions(patient.partitions)]
        scans = {state.partition: await look.scan(state, patient.most) for state in mine}
        servers = {state.partition: await look.server(state.partition) for state in mine}
        for finding in of_log(log, servers, mine, scans):
            yield finding
    for finding in await _groups(look, patient, states):
        yield finding
    letters = Counter[tuple[str, str]]()
    for place in (*(state.partition for state in states if state.dead), f"{patient.gateway}.0"):
        letters += await look.letters(place, patient.most)
    for finding in of_letters(letters, sum(state.dead for state in states)):
        yield finding
    edges = await look.edges()
    yield ok("edges", f"{len(edges)} live") if edges else Finding("edges", "warn", "none lives", "`gateway edge`")
    if patient.bridge:
        holder = (await look.bridge(patient.bridge)).holder
        yield (
            ok("bridge", f"{holder} serves the broker")
            if holder
            else Finding("bridge", "bad", f"nobody holds the lease {patient.bridge!r}", "`gateway bridge`; its /readyz")
        )


async def _states(look: Inspection, patient: Patient) -> tuple[list[PartitionState], list[Partition]]:
    """Return how the partitions stand, and those of a cluster's nodes that are away; raises where all are."""
    found, away = list[PartitionState](), list[Partition]()
    for name in [name for log in patient.logs for name in log.partitions(patient.partitions)]:
        try:
            found.append(await look.partition(name))
        except Unavailable:
            away.append(name)
    if away and not found:
        await look.partition(away[0])
    return found, away


def of_server(server: ServerState) -> list[Finding]:
    """Judge the log server itself."""
    found, name = [], "log server"
    share = server.memory_used / server.memory_bound if server.memory_bound else 0.0
    used = f"{server.memory_used / 2**20:.0f} MiB, {share:.0%} of what it may use"
    warn, bad = limits.DOCTOR_FULL
    if share >= warn:
        state: Literal["warn", "bad"] = "bad" if share >= bad else "warn"
        remedy = "raise maxmemory, or lower `retention` and `keep`; a group that lags holds trimming up, see below"
        found.append(Finding("memory", state, used, remedy))
    if server.evicted:
        remedy = "set maxmemory-policy noeviction: what it threw away is lost, restore a backup if you need it"
        found.append(Finding(name, "bad", f"threw {server.evicted} keys away", remedy))
    if not server.writes_ok:
        remedy = "make room on its disk: nothing is taken until it can write"
        found.append(Finding(name, "bad", "its last write to the append-only file failed", remedy))
    if not server.rewrite_ok or not server.snapshot_ok:
        remedy = "see its own log: room on the disk, memory for a fork (vm.overcommit_memory)"
        found.append(Finding(name, "warn", "its last rewrite or snapshot failed: its files grow", remedy))
    return found or [ok(name, f"{server.version}, {used}")]


def of_log(
    log: AppLog,
    servers: Mapping[Partition, ServerState],
    states: Sequence[PartitionState],
    scans: Mapping[Partition, Scan],
) -> list[Finding]:
    """Judge one application's log."""
    found, name = [], f"log {log.app}"
    for state in states:
        found += of_partition(log, servers[state.partition], state, scans[state.partition])
    seen = sum(scan.seen for scan in scans.values())
    kept = sum(state.length for state in states)
    return found or [ok(name, f"{kept} entries in {len(states)} partitions; {seen} read, all whole")]


def of_partition(log: AppLog, server: ServerState, state: PartitionState, scan: Scan) -> list[Finding]:
    """Judge one partition; nothing when all is well, or when it was never used."""
    found, name = [], f"log {state.partition}"
    if not state.epoch:
        return []
    if state.blocked:
        what = f"entries of another program, {', '.join(state.above)}" if state.above else "another program set its top"
        says = f"{what}: {state.top} is above all of ours, and every append fails"
        key = f"'{{{state.partition}}}'"
        heal = f'EVAL "{_COPY}" 1 {key} {state.last}' if state.last else f"DEL {key}"
        found.append(Finding(name, "bad", says, f"with the log server's CLI, then ask again: {heal}"))
    if state.life != server.life:
        says = "the log server began another life, and nobody has opened an epoch since: no process writes"
        found.append(Finding(name, "warn", says, "start edge, bridge or workers"))
    recent = sum(epoch > server.now - 3_600_000 for epoch in state.epochs)
    if recent >= limits.DOCTOR_EPOCHS:
        says = f"{recent} epochs within an hour: the log server restarts, or fails over, again and again"
        found.append(Finding(name, "warn", says, "see its own log"))
    if scan.damages:
        first = "; ".join(f"{one.id} {one.reason}" for one in scan.damaged)
        remedy = (
            "nobody gets them, and a repair would drop them: publish them again, or restore a backup; look for a bad "
            "disk or memory, or (foreign) for another program with rights to these keys"
        )
        found.append(Finding(name, "bad", f"{scan.damages} damaged of {scan.seen}: {first}", remedy))
    if scan.holes:
        remedy = "somebody deleted entries: readers take it for a loss; only the gateway may write to these keys"
        found.append(Finding(name, "bad", f"{scan.holes} entries are missing between others", remedy))
    age, oldest = (server.now - state.marked) / 1000, (server.now - state.marked_first) / 1000
    if state.marked and age > limits.MARK_EVERY + limits.DOCTOR_LATE:
        remedy = "start edge, bridge or workers: each of them marks and trims"
        found.append(Finding(name, "warn", f"no mark for {age:.0f} s, so nothing is trimmed", remedy))
    elif state.marked and oldest > log.retention + limits.DOCTOR_LATE and state.length > log.keep + limits.TRIM_PAGE:
        says = f"{state.length} entries, and the oldest mark is {oldest / 3600:.1f} h old: trimming is behind"
        found.append(Finding(name, "warn", says, "a group that is behind holds it up: see groups"))
    return found


# --- groups ---------------------------------------------------------------------------------------------------------


async def _groups(look: Inspection, patient: Patient, states: Sequence[PartitionState]) -> list[Finding]:
    where: dict[str, list[Partition]] = {group: [] for group in patient.services}
    for state in states:
        for group in state.groups:
            where.setdefault(group, []).append(state.partition)
    found: list[Finding] = []
    for group, places in sorted(where.items()):
        before = await _asked(look, group, places)
        stuck = await _stuck(look, group, before)
        findings = of_group(group, before, stuck, known=_known(group, patient))
        if group in patient.services and patient.services[group].reactions and not await look.workers(group):
            findings.insert(0, Finding(f"group {group}", "bad", "no worker lives", f"`gateway work {group}`"))
        for one in before:
            if one.parked and (first := await look.parked(one.partition, group)) is not None:
                server = await look.server(one.partition)
                findings.append(_of_parked(one, (server.now - first.since) / 1000, first.attempts, first.error))
        lag = sum(one.lag for one in before)
        found += findings or [ok(f"group {group}", f"{lag} entries behind in {len(places)} partitions, and moving")]
    return found


async def _asked(look: Inspection, group: str, places: Sequence[Partition]) -> list[GroupState]:
    found = []
    for place in places:
        try:
            found.append(await look.group(place, group))
        except NotAvailable:
            continue  # it was forgotten this moment
    return found


async def _stuck(look: Inspection, group: str, before: Sequence[GroupState]) -> Collection[Partition]:
    """Where the cursor of a group that lags takes no step within `limits.DOCTOR_WATCH`."""
    waits = {state.partition: state.cursor for state in before if state.lag and not state.paused}
    loop = asyncio.get_running_loop()
    until = loop.time() + limits.DOCTOR_WATCH
    while waits and loop.time() < until:
        await asyncio.sleep(limits.LOOK_EVERY)
        now = {state.partition: state for state in await _asked(look, group, list(waits))}
        waits = {place: cursor for place, cursor in waits.items() if place in now and now[place].cursor == cursor}
    return waits


def _known(group: str, patient: Patient) -> bool:
    return group in patient.services or group == f"bridge.{patient.bridge}"


def of_group(group: str, states: Sequence[GroupState], stuck: Collection[Partition], *, known: bool) -> list[Finding]:
    """Judge how far one group is."""
    found, name = [], f"group {group}"
    if states and not known and not any(state.holder for state in states):
        says = f"is no service of this configuration, and {sum(state.lag for state in states)} entries wait for it"
        remedy = f"trimming waits for it: `gateway groups forget {group}` if it is not coming back"
        return [Finding(name, "warn", says, remedy)]
    if any(state.paused for state in states):
        found.append(Finding(name, "warn", "is paused", f"`gateway groups resume {group}`"))
    serve = "`gateway bridge`" if group.startswith("bridge.") else f"`gateway work {group}`"
    for state in states:
        if state.cursor > state.top:
            says = f"{state.partition}: its cursor stands at {state.cursor}, and the log ends at {state.top}"
            remedy = f"what comes is taken for done: `gateway groups replay {group} --from 1h`, or from earlier"
            found.append(Finding(name, "bad", says, remedy))
        behind = f"{state.partition}: {state.lag} entries behind"
        share = (state.top + 1 - state.oldest) / limits.UNFINISHED
        if share >= limits.DOCTOR_FULL[0]:
            says = f"{state.partition}: {share:.0%} of what trimming waits for is unfinished, beyond are dead letters"
            found.append(Finding(name, "bad", says, "more workers, or see what it is that holds it up"))
        if state.partition not in stuck:
            continue
        if not state.holder:
            found.append(Finding(name, "bad", f"{behind}, and nobody holds its lease", serve))
        else:
            says = f"{behind}, and {state.holder} has not moved for {limits.DOCTOR_WATCH:.0f} s"
            remedy = "a handler that waits, or a process that hangs: its /readyz and log; killed, another takes over"
            if group.startswith("bridge."):
                remedy = "the broker is away, slow or refuses: /readyz of the bridge"
            found.append(Finding(name, "warn", says, remedy))
    return found


def _of_parked(state: GroupState, age: float, attempts: int, error: str) -> Finding:
    full = state.parked >= limits.DOCTOR_FULL[0] * limits.PARKED
    says = f"{state.partition}: {state.parked} parked, the first for {age:.0f} s after {attempts} attempts: {error}"
    remedy = "mend what fails; keys that wait behind it go on then"
    if full:
        remedy += f"; at {limits.PARKED} the partition is read no further"
    return Finding(f"group {state.group}", "bad" if full else "warn", says, remedy)


def of_letters(letters: Mapping[tuple[str, str], int], total: int) -> list[Finding]:
    """Judge the dead letters, by who gave them up and why."""
    if not letters:
        return [ok("dead letters", "none")]
    more = "" if sum(letters.values()) >= total else f" (of the oldest read; {total} in all)"
    return [
        Finding(
            "dead letters",
            "warn",
            f"{count} of {group or 'no group'}: {reason}{more}",
            f"`gateway dead ls --reason {reason}{f' --group {group}' if group else ''}`, then replay or drop",
        )
        for (group, reason), count in sorted(letters.items())
    ]


# --- databases ------------------------------------------------------------------------------------------------------


async def _database(group: str, service: Service, url: str) -> list[Finding]:
    # SQLAlchemy takes longer to import than most commands to run, and the command line imports them all.
    from gateway.adapters.database import attach

    name = f"database of {group}"
    try:
        async with asyncio.timeout(limits.DOCTOR_WITHIN):
            store = await attach(url)
            try:
                rest = await store.outbox_age()
                sagas = await store.sagas(service.sagas)
            finally:
                await store.close()
    except NotAvailable as error:
        return [ok(name, str(error))]
    except GatewayError as error:
        return [Finding(name, "bad", str(error), f"start it; its workers wait for it. `gateway migrate {group}`")]
    except TimeoutError:
        return [Finding(name, "bad", f"no answer within {limits.DOCTOR_WITHIN:g} s", "see the database's own server")]
    found = []
    if rest > limits.DOCTOR_LATE:
        says = f"its outbox waits: the first event for {rest:.0f} s"
        remedy = f"`gateway work {group}`; /readyz of its workers tells why none leaves"
        found.append(Finding(name, "bad", says, remedy))
    for one in sagas:
        if one.overdue or one.stuck:
            says = f"saga {one.saga}: {one.overdue} overdue, {one.stuck} asked {limits.SAGA_STUCK} times in vain"
            remedy = f"replay the timer or the command: `gateway dead ls --group {group}`, and of the step's service"
            found.append(Finding(name, "warn", says, remedy))
    return found or [ok(name, f"its outbox is empty or moving; {sum(one.open for one in sagas)} sagas are open")]
