"""What a service declares, and every contradiction that keeps it from running."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gateway import App, Context, Event, Service, Topic, limits
from gateway.app import declare, services
from gateway.errors import Misconfigured
from gateway.service import Reaction, Start
from gateway.settings import ServiceTable, Settings

TOPICS = [
    Topic(pattern="shop/orders/{order}/placed"),
    Topic(pattern="shop/stock/{order}/taken", key="{order}"),
    Topic(pattern="shop/typing/{user}", ephemeral=True),
]


class Order(msgspec.Struct):
    n: int


async def take(order: Order, context: Context) -> None: ...
async def take_many(orders: list[Order], contexts: list[Context]) -> None: ...
async def take_plain(order, context): ...  # type: ignore[no-untyped-def]  # as somebody may write it
async def take_event(event: Event, context: Context) -> None: ...
async def take_callable(call: Callable[[], None], context: Context) -> None: ...
async def take_nobody_knows(order: Nobody, context: Context) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - that is the mistake
async def take_one(order: Order) -> None: ...
def take_now(order: Order, context: Context) -> None: ...


def service(
    call: Any = take, pattern: str = "shop/orders/+/placed", emits: tuple[str, ...] = (), **how: Any
) -> Service:
    made = Service("stock", emits=emits)
    made.on(pattern, **how)(call)
    return made


def declared(*made: Service) -> dict[str, Service]:
    apps = [App("shop", topics=TOPICS, services=made)]
    return services(declare(Settings(), apps), apps)


def test_a_group_is_named_by_application_and_service() -> None:
    made = service()
    assert declared(made) == {"shop.stock": made}


def test_a_decorated_function_stays_what_it_is() -> None:
    assert Service("stock").on("shop/#")(take) is take


@pytest.mark.parametrize(
    ("call", "batch", "kind"),
    [(take, 0, Order), (take_many, 10, Order), (take_plain, 0, Any), (take_plain, 10, Any), (take_event, 0, Event)],
)
def test_the_payload_is_what_the_first_parameter_says(call: Any, batch: int, kind: Any) -> None:
    assert Reaction(Topic(pattern="shop/#"), call, batch=batch).payload() is kind


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "Stock"}, "no good name"),
        ({"name": "stock", "concurrency": 0}, "concurrency is 0"),
        ({"name": "stock", "emits": ["+/x"]}, "does not begin with a plain level"),
    ],
)
def test_a_service_that_contradicts_itself_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        Service(**wrong)


@pytest.mark.parametrize(
    ("call", "how", "says"),
    [
        (take_now, {}, "is not asynchronous; write async def"),
        (take_one, {}, "does not take two parameters"),
        (take, {"timeout": 0}, "timeout is 0 s"),
        (take, {"timeout": float("nan")}, "timeout is nan s"),
        (take, {"batch": limits.BATCH_MOST + 1}, "batch is"),
        (take, {"expires": -1}, "expires is -1 s"),
    ],
)
def test_a_handler_that_cannot_be_called_is_refused(call: Any, how: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        service(call, **how)
    assert says in str(caught.value)


def test_two_handlers_never_want_the_same_event() -> None:
    made = service(pattern="shop/orders/#")
    with pytest.raises(Misconfigured, match="overlaps 'shop/orders/#'"):
        made.on("shop/+/{x}/placed")(take)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (Service("stock"), "service 'shop.stock' handles nothing; decorate a function with @stock.on(…), or give it"),
        (service(pattern="shop/nothing/here"), "is not declared"),
        (service(pattern="shop/typing/+"), "'shop/typing/{user}' is not kept"),
        (service(take, batch=5), "takes batches; annotate its first parameter as list"),
        (service(take_callable), "nothing decodes JSON to"),
        (service(take_nobody_knows), "name 'Nobody' is not defined; annotate it with types that its module knows"),
        (service(emits=("shop/orders/{x}/placed",)), "would hear itself"),
        (service(emits=("shop/elsewhere",)), "emits 'shop/elsewhere', which is not declared"),
    ],
)
def test_what_keeps_a_service_from_running_is_said_at_the_start(made: Service, says: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        declared(made)
    assert says in str(caught.value)


def test_a_service_may_have_routes_alone() -> None:
    made = Service("stock", routes=[object()])
    assert declared(made) == {"shop.stock": made}
    assert made.partitions(declare(Settings(), [App("shop", topics=TOPICS)])) == ()


def test_routes_are_not_where_the_gateway_has_its_own() -> None:
    with pytest.raises(Misconfigured, match=r"paths below /topics/ are the gateway's own"):
        services(declare(Settings(), apps := [App("topics", services=[Service("stock", routes=[object()])])]), apps)


def test_settings_name_services_that_are_there() -> None:
    apps = [App("shop", topics=TOPICS, services=[Service("stock", routes=[object()])])]
    declare(Settings(services={"shop.stock": ServiceTable()}), apps)
    with pytest.raises(Misconfigured, match=r"services\.shop\.stok is no service; did you mean shop\.stock\?"):
        declare(Settings(services={"shop.stok": ServiceTable()}), apps)


def test_services_of_an_application_have_names_of_their_own() -> None:
    with pytest.raises(Misconfigured, match="service 'stock' is there twice"):
        declared(service(), service())


def test_it_reads_the_partitions_where_its_events_may_be() -> None:
    start: Start = "latest"
    made = Service("stock", start=start)
    made.on("shop/orders/7/placed")(take)
    everything = declare(Settings(), [App("shop", topics=TOPICS)])
    assert made.partitions(everything) == (everything.find("shop/orders/7/placed").partition,)
    made.on("shop/stock/#")(take)
    assert made.partitions(everything) == everything.partitions("shop")
