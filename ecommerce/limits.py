"""Every bound of the shop: its default, its reason, and what happens at it."""

from __future__ import annotations

from typing import Final

#: Lines of one order, and pieces of one line: what one parcel holds. → 422
LINES_MOST: Final = 50
QUANTITY_MOST: Final = 999
#: Pieces that come in at once. → 422
RECEIPT_MOST: Final = 1_000_000
#: Minor units of one amount: far above any order, far below what JavaScript counts exactly (2^53). → 422
AMOUNT_MOST: Final = 10_000_000_000
#: Characters of an article's title, of an idempotency key, of a promotion's text. → 422
TITLE_MOST: Final = 120
KEY_MOST: Final = 128
TEXT_MOST: Final = 4_000
#: Characters of an acquirer's token for a card. → 422
METHOD_MOST: Final = 64
#: Characters of an order's number, as the tables keep it. → 404
ORDER_MOST: Final = 32
#: Seconds that an idempotency key is remembered. Then the same key is a new order.
KEY_KEPT: Final = 86_400
#: Rows that are over, such as keys and webhooks, that the next of their kind removes.
PURGE_PAGE: Final = 100
#: Seconds for inventory to reserve; then the order expires and an operator is told.
RESERVE_WITHIN: Final = 900
#: Seconds for a customer to pay, from the reservation and again from each decline. → expired, stock is released
PAY_WITHIN: Final = 900
#: Seconds until a service that owes an answer after the money is sure is asked again, and an operator told.
STEP_WITHIN: Final = 60
#: Seconds for a parcel to leave, and to arrive.
SHIP_WITHIN: Final = 2 * 86_400
DELIVER_WITHIN: Final = 14 * 86_400
#: Cards that a customer may try for one order. → the order is cancelled
ATTEMPTS: Final = 3
#: Age in seconds of a signed webhook: an older one is a recording. → 401, and the acquirer signs it again
WEBHOOK_AGE: Final = 300
#: Seconds that a webhook is known by its id; far longer than anybody says a thing twice.
WEBHOOK_KEPT: Final = 30 * 86_400
#: Seconds for another service, the acquirer or a mail server to answer. → asked again
ASK_WITHIN: Final = 10.0
#: Seconds that it is known which mails went out.
MESSAGES_KEPT: Final = 90 * 86_400
#: People whom one delivery of a promotion writes to.
PROMOTION_PAGE: Final = 100
#: As soon as possible, for what must be an event of its own: the least that `later` takes.
AT_ONCE: Final = 0.001
