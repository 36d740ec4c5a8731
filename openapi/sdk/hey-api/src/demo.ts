// A whole session, by the clients that @hey-api/openapi-ts makes.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { client as orders } from "./orders/client.gen.js";
import { cancelOrder, createOrder } from "./orders/index.js";
import { client as status } from "./status/client.gen.js";
import { getOrderStatus } from "./status/index.js";
import { client as store } from "./store/client.gen.js";
import { addItem, findItem } from "./store/index.js";

// With throwOnError an answer has data, and a problem is thrown; without it, see the end.
const throwOnError = true;
const {
  ORDERS_URL = "http://127.0.0.1:8000",
  STATUS_URL = "http://127.0.0.1:8001",
  STORE_URL = "http://127.0.0.1:8002",
} = process.env;
orders.setConfig({ baseUrl: ORDERS_URL });
status.setConfig({ baseUrl: STATUS_URL });
store.setConfig({ baseUrl: STORE_URL });

// An item of our own, so that the demo may run any number of times.
const added = await addItem({
  body: { seller_id: 1, price: 1000, name: "Demo item" },
  throwOnError,
});
const { item_id } = added.data;

// Create an order; the same key once more is the same order. The quantity is left out.
const body = { item_id, seller_id: 1, client_id: 1 };
const headers = { "Idempotency-Key": randomUUID() };
const created = await createOrder({ body, headers, throwOnError });
const { order_id } = created.data;
console.log(`order ${order_id}: ${created.response.headers.get("Location")}`);
console.log(`request ${created.response.headers.get("X-Request-Id")}`);
assert(created.response.headers.has("Location") && created.response.headers.has("X-Request-Id"));
const again = await createOrder({ body, headers, throwOnError });
assert.equal(again.data.order_id, order_id, "the same order");

// Wait for the store's decision.
const decided = await getOrderStatus({ query: { order_id, wait_ms: 5000 }, throwOnError });
assert.equal(decided.data.step, "SHIPPING");
console.log(`order ${order_id}: ${decided.data.step}, ${decided.data.facts.map((heard) => heard.fact)}`);

const { data: item } = await findItem({ query: { item_id }, throwOnError });
console.log(`item ${item_id}: ${item.item_name}, ${item.reserved} of ${item.quantity} reserved`);

// Cancel it, and wait for that.
const cancelled = await cancelOrder({ query: { order_id }, throwOnError });
console.log(`order ${order_id}: ${cancelled.data.status}`);
const { data: over } = await getOrderStatus({
  query: { order_id, wait_for: "CANCELLED", wait_ms: 5000 },
  throwOnError,
});
assert.equal(over.step, "CANCELLED");
console.log(`order ${order_id}: ${over.step} by the ${over.initiator}: ${over.reason}`);

// Problems have types.
const missing = await getOrderStatus({ query: { order_id: Number.MAX_SAFE_INTEGER } });
assert.equal(missing.response?.status, 404);
assert.equal(missing.error?.type, "urn:ordersaga:problem:not-found");
console.log(`404: ${missing.error?.detail}`);

const wrong = await createOrder({ body: { ...body, quantity: 0 } });
assert.equal(wrong.response?.status, 422);
assert.equal(wrong.error?.type, "urn:ordersaga:problem:invalid-field");
assert.equal(wrong.error?.field, "quantity");
console.log(`422: ${wrong.error?.field}: ${wrong.error?.detail}`);
