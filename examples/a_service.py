"""A service that runs alone: python examples/a_service.py, then gateway pub shop/orders/7/placed '{"item": "tea"}'"""

import os
import sys

import msgspec

from gateway import App, Context, Rejected, Retry, Service, Topic


class Order(msgspec.Struct):
    item: str


stock = Service("stock", emits=["shop/orders/{order}/reserved"])


@stock.on("shop/orders/{order}/placed", retry=Retry(5, first=0.2, most=60), timeout=30)
async def reserve(order: Order, context: Context) -> None:
    if order.item == "coffee":
        raise Rejected("we sell tea")  # see it with: gateway dead ls
    context.emit(f"shop/orders/{context.variables['order']}/reserved", order)


app = App("shop", [Topic(pattern="shop/orders/{order}/+", read=("user",), write=("user",))], services=[stock])
if __name__ == "__main__":
    os.environ |= {"GATEWAY_APPS": "a_service:app", "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
    os.execv(sys.executable, [sys.executable, "-m", "gateway.cli", "up"])  # noqa: S606 - no shell: it becomes `gateway up`
