"""A whole session, by the clients that openapi-generator makes."""

from os import environ
from uuid import uuid4

import ordersaga_orders
import ordersaga_status
import ordersaga_store
from ordersaga_orders import NewOrder, OrdersApi
from ordersaga_status import OrderStep, StatusApi
from ordersaga_store import ItemsApi, NewItem

orders_at = ordersaga_orders.Configuration(environ.get("ORDERS_URL", "http://127.0.0.1:8000"))
status_at = ordersaga_status.Configuration(environ.get("STATUS_URL", "http://127.0.0.1:8001"))
store_at = ordersaga_store.Configuration(environ.get("STORE_URL", "http://127.0.0.1:8002"))
orders = OrdersApi(ordersaga_orders.ApiClient(orders_at))
status = StatusApi(ordersaga_status.ApiClient(status_at))
store = ItemsApi(ordersaga_store.ApiClient(store_at))


def main() -> None:
    # An item of our own, so that the demo may run any number of times.
    item_id = store.add_item(NewItem(seller_id=1, price=1000, name="Demo item")).item_id

    # Create an order; the same key once more is the same order. The quantity is left out.
    key = str(uuid4())
    order = NewOrder(item_id=item_id, seller_id=1, client_id=1)
    answer = orders.create_order_with_http_info(order, idempotency_key=key)
    assert answer.headers is not None
    order_id = answer.data.order_id
    print(f"order {order_id}: {answer.headers['location']} ({answer.headers['x-request-id']})")
    again = orders.create_order(order, idempotency_key=key)
    assert again == answer.data, again

    # Wait for the store's decision.
    now = status.get_order_status(order_id, wait_ms=5000)
    assert now.step is OrderStep.SHIPPING, now
    print(f"order {order_id}: {now.step.value}, {[heard.fact.value for heard in now.facts]}")

    item = store.find_item(item_id)
    print(f"item {item.item_id}: {item.item_name}, {item.reserved} of {item.quantity} reserved")

    # Cancel it, and wait for that.
    print(f"order {order_id}: {orders.cancel_order(order_id).status.value}")
    now = status.get_order_status(order_id, wait_for=OrderStep.CANCELLED, wait_ms=5000)
    assert now.step is OrderStep.CANCELLED, now
    assert now.initiator is not None and now.reason is not None, now
    print(f"order {order_id}: {now.step.value} by the {now.initiator.value}: {now.reason.value}")

    # Problems have types. They are the data of exceptions. A quantity of 0 would not be sent at all.
    try:
        status.get_order_status(2**63 - 1)
        raise AssertionError("an order that is not there was found")
    except ordersaga_status.exceptions.NotFoundException as error:
        missing = error.data
        assert isinstance(missing, ordersaga_status.Problem), error
        assert missing.type is ordersaga_status.ProblemType.NOT_FOUND, missing
        print(f"404: {missing.detail}")
    try:
        orders.create_order(NewOrder(item_id=item_id, seller_id=1, client_id=2), idempotency_key=key)
        raise AssertionError("a used key was taken for another order")
    except ordersaga_orders.exceptions.UnprocessableEntityException as error:
        wrong = error.data
        assert isinstance(wrong, ordersaga_orders.Problem), error
        assert wrong.type is ordersaga_orders.ProblemType.IDEMPOTENCY_KEY_REUSED, wrong
        assert wrong.var_field == "Idempotency-Key", wrong
        print(f"422: {wrong.var_field}: {wrong.detail}")


if __name__ == "__main__":
    main()
