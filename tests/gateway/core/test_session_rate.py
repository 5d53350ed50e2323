"""Tests of core/session: how often a client may ask, what is free, and when it is given up."""

from __future__ import annotations

import pytest

from gateway import limits
from gateway.core.access import Principal
from gateway.core.rate import Rate
from gateway.core.session import TOO_MANY, Attach, Authenticate, Close, Detach, Refuse, Reply, Session, State, Step

RPC = b'{"id":7,"rpc":{"method":"m","data":1}}'
#: Two a second, five at once.
SLOWLY = Rate(2, 5)


def paced(kind: str = "user", rate: Rate = SLOWLY) -> Session:
    """A session that came in at second 10, when its bucket was full."""
    one = Session("c1", rate=rate)
    list(one.receive(b'{"id":1,"connect":{"token":"t"}}', 10))
    one.connected(Principal(kind, "alice"))
    return one


def passed(one: Session, frame: bytes, now: float) -> bool:
    (step,) = one.receive(frame, now)
    return not isinstance(step, Refuse)


def test_so_many_commands_at_once_and_then_so_many_a_second() -> None:
    one = paced()
    assert [passed(one, RPC, 10) for _ in range(5)] == [True, True, True, True, False], "the connect was one"
    (step,) = one.receive(RPC, 10.2)
    assert isinstance(step, Refuse)
    assert (step.error.reply, step.error.retry, step.error.code) == (111, True, "too_fast")
    assert step.error.retry_after == pytest.approx(0.3)
    assert [passed(one, RPC, 10.5), passed(one, RPC, 10.5)] == [True, False]
    assert [passed(one, RPC, 60) for _ in range(6)] == [True] * 5 + [False]


def test_each_command_of_a_frame_counts() -> None:
    steps = list(paced().receive(b"\n".join([RPC] * 6), 10))
    assert [isinstance(step, Refuse) for step in steps] == [False] * 4 + [True] * 2


def test_pongs_do_not_count() -> None:
    one = paced()
    for _ in range(20):
        one.ping()
        assert list(one.receive(b"{}", 10)) == [Reply(b"")]
    assert passed(one, RPC, 10)


@pytest.mark.parametrize("kind", ["service", "operator"])
def test_services_and_operators_ask_as_fast_as_they_like(kind: str) -> None:
    one = paced(kind)
    assert all(passed(one, RPC, 10) for _ in range(50))


def test_without_a_rate_everybody_does() -> None:
    one = paced(rate=Rate())
    assert all(passed(one, RPC, 10) for _ in range(50))


def test_who_comes_back_subscribes_to_all_he_had_at_once() -> None:
    one = paced()
    subscribe = b"\n".join(b'{"id":2,"subscribe":{"channel":"a/%d"}}' % n for n in range(limits.SUBSCRIPTIONS))
    assert all(isinstance(step, Attach) for step in one.receive(subscribe, 10))
    assert passed(one, RPC, 10)
    # What a server takes away for the client to come back for is free, too.
    one.returns("a/7")
    assert passed(one, b'{"id":2,"subscribe":{"channel":"a/7"}}', 10)
    # An unsubscribe ends what a subscribe began; SDKs connect anew where it is refused.
    unsubscribe = b"\n".join(b'{"id":3,"unsubscribe":{"channel":"a/%d"}}' % n for n in range(limits.SUBSCRIPTIONS))
    assert all(isinstance(step, Detach) for step in one.receive(unsubscribe, 10))
    assert passed(one, RPC, 10)
    # But from then on both count.
    assert [passed(one, b'{"id":4,"unsubscribe":{"channel":"b"}}', 10) for _ in range(2)] == [True, True]
    assert not passed(one, b'{"id":5,"subscribe":{"channel":"a/7"}}', 10)
    assert one.channels == set()


def test_an_expired_token_is_tried_at_the_same_rate() -> None:
    one = Session("c1", rate=SLOWLY)
    connect = b'{"id":1,"connect":{"token":"t"}}'
    heard: list[Step] = []
    for _ in range(6):
        heard += one.receive(connect, 10)
        one.state = State.FRESH  # it was answered with error 109
    assert [isinstance(step, Authenticate) for step in heard] == [True] * 5 + [False]
    assert passed(one, connect, 11)


def test_a_flood_ends_the_connection() -> None:
    one = paced()
    steps: list[Step] = []
    while one.state is State.OPEN:
        steps += one.receive(RPC, 10)
    assert steps[-1] == TOO_MANY
    assert len(steps) == 4 + SLOWLY.burst * limits.FLOOD + 1


def test_who_is_a_little_too_fast_stays() -> None:
    one = paced()
    # Nine times as many as it may, for an hour.
    for n in range(3_600 * 18):
        assert not isinstance(next(iter(one.receive(RPC, 10 + n / 18))), Close)
