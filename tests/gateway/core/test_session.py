"""Tests of core/session: every command in every state, and what closes a connection for good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import limits
from gateway.core import session, wire
from gateway.core.access import ANONYMOUS, Grant, Principal
from gateway.core.session import (
    BAD_REQUEST,
    NO_PONG,
    NORMAL,
    NOT_AVAILABLE,
    STALE,
    STEPS,
    Attach,
    Authenticate,
    Call,
    Close,
    Detach,
    Prolong,
    Recall,
    Refuse,
    Renew,
    Reply,
    Session,
    State,
    Step,
    Store,
    Survey,
)

ALICE = Principal("user", "alice")
SEND = b'{"send":{"data":1}}'

#: One good command of each method, all under id 7 where they have one.
COMMANDS = {
    **{m: b'{"id":7,"%s":{"channel":"a","method":"m","token":"t","data":1}}' % m.encode() for m in wire.METHODS},
    "send": SEND,
    "": b"{}",
    "?": b'{"id":7,"connect":{},"rpc":{}}',
}


def hear(one: Session, frame: bytes) -> list[Step]:
    """All that follows from one message."""
    return list(one.receive(frame))


def in_state(state: State) -> Session:
    one = Session("c1")
    if state is not State.FRESH:
        hear(one, b'{"id":1,"connect":{"token":"t"}}')
    if state in (State.OPEN, State.CLOSED):
        one.connected(ALICE)
        one.ping()
    if state is State.CLOSED:
        one.close(NORMAL)
    assert one.state is state
    return one


def code(step: Step) -> int:
    assert isinstance(step, Refuse)
    return step.error.reply


def opened() -> Session:
    return in_state(State.OPEN)


#: What a command leads to where it is legal.
LEGAL: dict[tuple[State, str], type] = {
    (State.FRESH, "connect"): Authenticate,
    (State.OPEN, "subscribe"): Attach,
    (State.OPEN, "unsubscribe"): Detach,
    (State.OPEN, "publish"): Store,
    (State.OPEN, "rpc"): Call,
    (State.OPEN, ""): Reply,
    (State.OPEN, "send"): Close,
    (State.OPEN, "history"): Recall,
    (State.OPEN, "presence"): Survey,
    (State.OPEN, "presence_stats"): Survey,
    (State.OPEN, "refresh"): Renew,
    (State.OPEN, "sub_refresh"): Refuse,
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("method", COMMANDS)
def test_every_command_in_every_state(state: State, method: str) -> None:
    one = in_state(state)
    steps = hear(one, COMMANDS[method])
    if state is State.CLOSED:
        assert steps == []
    elif expected := LEGAL.get((state, method)):
        (step,) = steps
        assert isinstance(step, expected)
        if expected is Close:
            assert step == NOT_AVAILABLE
        if step == NOT_AVAILABLE:
            assert one.state is State.CLOSED
    else:
        assert steps == [BAD_REQUEST]
        assert one.state is State.CLOSED


def test_the_table_has_nothing_else() -> None:
    assert set(STEPS) == set(LEGAL)


# --- connecting ---


def test_connect_asks_who_it_is() -> None:
    one = Session("c1")
    assert hear(one, b'{"id":1,"connect":{"token":"t","name":"js","version":"5.0"}}') == [
        Authenticate(1, "t", "js 5.0")
    ]
    assert (one.state, one.principal) == (State.ASKED, ANONYMOUS)
    one.connected(ALICE)
    assert (one.state, one.principal) == (State.OPEN, ALICE)


def test_a_client_cannot_name_itself_at_any_length() -> None:
    (step,) = hear(Session("c1"), b'{"id":1,"connect":{"name":"%s"}}' % (b"x" * 1_000))
    assert isinstance(step, Authenticate)
    assert len(step.client) == limits.ID_BYTES


@pytest.mark.parametrize("state", [State.FRESH, State.OPEN, State.CLOSED])
def test_who_did_not_ask_is_not_connected(state: State) -> None:
    one = in_state(state)
    one.connected(Principal("operator", "mallory"))
    assert one.state is state
    assert one.principal.kind != "operator"


@pytest.mark.parametrize("id", [0, -1, 2**32])
def test_an_id_is_a_positive_uint32(id: int) -> None:
    assert hear(opened(), b'{"id":%d,"rpc":{}}' % id) == [BAD_REQUEST]


def test_the_largest_id() -> None:
    assert hear(opened(), b'{"id":%d,"rpc":{"method":"m","data":1}}' % (2**32 - 1)) == [Call(2**32 - 1, "m", b"1")]


# --- frames ---


def test_a_frame_may_hold_several_commands() -> None:
    frame = b'{"id":2,"unsubscribe":{"channel":"a"}}\n{"id":3,"rpc":{"method":"m","data":{}}}\n'
    assert hear(opened(), frame) == [Detach(2, "a"), Call(3, "m", b"{}")]


@pytest.mark.parametrize("frame", [b"", b"\n", b"{}\n\n{}", b"x", b"[]", b"{}{}", b'{"id":7}', b'{"id":7,"new":{}}'])
def test_a_frame_that_is_none_closes_for_good(frame: bytes) -> None:
    one = opened()
    assert hear(one, frame)[-1] == BAD_REQUEST
    assert one.state is State.CLOSED


def test_after_a_close_nothing_follows() -> None:
    one = opened()
    assert hear(one, SEND + b"\n" + COMMANDS["rpc"]) == [NOT_AVAILABLE]
    assert hear(one, COMMANDS["rpc"]) == []


@given(st.lists(st.sampled_from([*COMMANDS.values(), b"x", b""]), max_size=8))
def test_at_most_one_close_and_it_is_the_last(lines: list[bytes]) -> None:
    one = Session("c1")
    steps: list[Step] = []
    for line in lines:
        new = hear(one, line)
        if new and isinstance(new[0], Authenticate):
            one.connected(ALICE)
        steps += new
    closes = [step for step in steps if isinstance(step, Close)]
    assert closes == ([] if one.state is not State.CLOSED else [steps[-1]])


# --- subscribing ---


def test_a_channel_is_subscribed_once() -> None:
    one = opened()
    (step,) = hear(one, b'{"id":2,"subscribe":{"channel":"a/+","recover":true}}')
    assert step == Attach(2, wire.Subscribe(channel="a/+", recover=True))
    (again,) = hear(one, b'{"id":3,"subscribe":{"channel":"a/+"}}')
    assert code(again) == 105
    one.ended("a/+")
    one.ended("a/+")
    (step,) = hear(one, b'{"id":4,"subscribe":{"channel":"a/+"}}')
    assert isinstance(step, Attach)
    assert hear(one, b'{"id":5,"unsubscribe":{"channel":"a/+"}}') == [Detach(5, "a/+")]
    assert one.channels == set()


@pytest.mark.parametrize("extra", ['"type":1', '"tf":{"op":"eq"}'])
def test_only_plain_subscriptions_are_offered(extra: str) -> None:
    one = opened()
    (step,) = hear(one, b'{"id":2,"subscribe":{"channel":"a",%s}}' % extra.encode())
    assert code(step) == 108
    assert one.channels == set()


def test_subscriptions_are_bounded() -> None:
    one = opened()
    for n in range(limits.SUBSCRIPTIONS):
        (step,) = hear(one, b'{"id":2,"subscribe":{"channel":"a/%d"}}' % n)
        assert isinstance(step, Attach)
    (step,) = hear(one, b'{"id":2,"subscribe":{"channel":"b"}}')
    assert code(step) == 106
    hear(one, b'{"id":3,"unsubscribe":{"channel":"a/0"}}')
    (step,) = hear(one, b'{"id":4,"subscribe":{"channel":"b"}}')
    assert isinstance(step, Attach)


def test_a_server_subscribes_within_the_same_bounds() -> None:
    ask = wire.Subscribe("a")
    assert in_state(State.FRESH).given(ask) is None
    one = opened()
    assert one.given(ask) == Attach(0, ask)
    assert one.given(ask) is None
    for n in range(limits.SUBSCRIPTIONS):
        one.given(wire.Subscribe(f"b/{n}"))
    assert len(one.channels) == limits.SUBSCRIPTIONS


def test_a_subscription_of_a_token_may_be_prolonged_and_others_may_not() -> None:
    one = opened()
    ask = b'{"id":2,"sub_refresh":{"channel":"a","token":"t"}}'
    (step,) = hear(one, ask)
    assert code(step) == 103
    hear(one, b'{"id":3,"subscribe":{"channel":"a"}}')
    (step,) = hear(one, ask)
    assert code(step) == 108
    one.permit("a", Grant(ALICE, 9))
    assert hear(one, ask) == [Prolong(2, "a", "t")]
    (step,) = hear(one, b'{"id":4,"sub_refresh":{"channel":"a"}}')
    assert code(step) == 107
    assert one.state is State.OPEN


def test_the_first_token_that_ends() -> None:
    one = opened()
    assert one.permits_end() is None
    for channel, expires in (("a", 9), ("b", None), ("c", 7)):
        hear(one, b'{"id":2,"subscribe":{"channel":"%s"}}' % channel.encode())
        one.permit(channel, Grant(ALICE, expires))
    assert one.permits_end() == 7
    hear(one, b'{"id":3,"unsubscribe":{"channel":"c"}}')
    assert one.permits_end() == 9
    one.ended("a")
    one.ended("a")
    assert one.permits_end() is None


# --- publishing ---


def test_a_publish_keeps_its_bytes() -> None:
    assert hear(opened(), b'{"id":2,"publish":{"channel":"a","data": {"n" : 1.0} }}') == [Store(2, "a", b'{"n" : 1.0}')]


@pytest.mark.parametrize("body", [b'"channel":"a/+","data":1', b'"channel":"#","data":1', b'"channel":"a"'])
def test_a_publish_to_a_filter_or_of_nothing_is_a_bad_request(body: bytes) -> None:
    one = opened()
    (step,) = hear(one, b'{"id":2,"publish":{%s}}' % body)
    assert code(step) == 107
    assert one.state is State.OPEN


# --- pings ---


def test_a_pong_answers_one_ping() -> None:
    one = opened()  # one ping is out
    assert hear(one, b"{}") == [Reply(b"")]
    assert hear(one, b"{}") == [BAD_REQUEST]


@pytest.mark.parametrize(
    ("state", "follows"), [(State.FRESH, STALE), (State.ASKED, STALE), (State.OPEN, NO_PONG), (State.CLOSED, NO_PONG)]
)
def test_who_does_not_answer_in_time_is_given_up(state: State, follows: Close) -> None:
    one = in_state(state)
    assert one.ping() == follows
    assert one.state is State.CLOSED


def test_a_ping_goes_out_when_the_last_was_answered() -> None:
    one = opened()
    hear(one, b"{}")
    assert one.ping() == Reply(wire.PING)


def test_codes_tell_an_sdk_whether_to_come_back() -> None:
    closes = [value for value in vars(session).values() if isinstance(value, Close)]
    assert {c.code for c in closes if 3500 <= c.code < 4000} == {3500, 3501, 3502, 3504, 3506, 3508}
    assert {c.code for c in closes if 3000 <= c.code < 3500} == {3000, 3001, 3005, 3008, 3012, 3013}
    assert all(len(c.reason.encode()) <= 123 for c in closes), "RFC 6455, 5.5: a close frame has 125 bytes"


def test_a_refresh_needs_a_token() -> None:
    one = opened()
    (step,) = hear(one, b'{"id":2,"refresh":{}}')
    assert code(step) == 107
    assert one.state is State.OPEN
