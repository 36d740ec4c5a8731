"""A whole session, by the clients that openapi-python-client makes."""

from os import environ
from uuid import uuid4

from httpx import Timeout
from ordersaga_orders import Client as OrdersClient
from ordersaga_orders.api.orders import cancel_order, create_order
from ordersaga_orders.models import NewOrder, OrderCancelled, OrderCreated
from ordersaga_orders.models import Problem as OrdersProblem
from ordersaga_orders.models import ProblemType as OrdersProblemType
from ordersaga_status import Client as StatusClient
from ordersaga_status.api.status import get_order_status
from ordersaga_status.models import OrderStatus, OrderStep, Problem, ProblemType
from ordersaga_store import Client as StoreClient
from ordersaga_store.api.items import add_item, find_item
from ordersaga_store.models import ItemAdded, NewItem, StockItem

orders = OrdersClient(environ.get("ORDERS_URL", "http://127.0.0.1:8000"))
# More than the time to wait: httpx's own is 5 seconds.
status = StatusClient(environ.get("STATUS_URL", "http://127.0.0.1:8001"), timeout=Timeout(30))
store = StoreClient(environ.get("STORE_URL", "http://127.0.0.1:8002"))


def main() -> None:
    # An item of our own, so that the demo may run any number of times.
    added = add_item.sync(
        client=store, body=NewItem(seller_id=1, price=1000, name="Demo item")
    )
    assert isinstance(added, ItemAdded), added
    item_id = added.item_id

    # Create an order; the same key once more is the same order. The quantity is left out.
    key = str(uuid4())
    order = NewOrder(item_id=item_id, seller_id=1, client_id=1)
    answer = create_order.sync_detailed(client=orders, body=order, idempotency_key=key)
    assert isinstance(answer.parsed, OrderCreated), answer
    order_id = answer.parsed.order_id
    print(f"order {order_id}: {answer.headers['Location']} ({answer.headers['X-Request-Id']})")
    again = create_order.sync(client=orders, body=order, idempotency_key=key)
    assert again == answer.parsed, again

    # Wait for the store's decision.
    now = get_order_status.sync(client=status, order_id=order_id, wait_ms=5000)
    assert isinstance(now, OrderStatus), now
    assert now.step is OrderStep.SHIPPING, now
    print(f"order {order_id}: {now.step}, {[str(heard.fact) for heard in now.facts]}")

    item = find_item.sync(client=store, item_id=item_id)
    assert isinstance(item, StockItem), item
    print(f"item {item.item_id}: {item.item_name}, {item.reserved} of {item.quantity} reserved")

    # Cancel it, and wait for that.
    cancelled = cancel_order.sync(client=orders, order_id=order_id)
    assert isinstance(cancelled, OrderCancelled), cancelled
    print(f"order {order_id}: {cancelled.status}")
    now = get_order_status.sync(
        client=status, order_id=order_id, wait_for=OrderStep.CANCELLED, wait_ms=5000
    )
    assert isinstance(now, OrderStatus), now
    assert now.step is OrderStep.CANCELLED, now
    print(f"order {order_id}: {now.step} by the {now.initiator}: {now.reason}")

    # Problems have types. They are answers, not exceptions.
    missing = get_order_status.sync(client=status, order_id=2**63 - 1)
    assert isinstance(missing, Problem), missing
    assert missing.type_ is ProblemType.NOT_FOUND and missing.status == 404, missing
    print(f"404: {missing.detail}")
    wrong = create_order.sync(
        client=orders, body=NewOrder(item_id=item_id, seller_id=1, client_id=1, quantity=0)
    )
    assert isinstance(wrong, OrdersProblem), wrong
    assert wrong.type_ is OrdersProblemType.INVALID_FIELD and wrong.status == 422, wrong
    assert wrong.field == "quantity", wrong
    print(f"422: {wrong.field}: {wrong.detail}")


if __name__ == "__main__":
    main()
