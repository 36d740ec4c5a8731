// A whole session, by the clients that openapi-generator (typescript-fetch) makes.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import * as orders from "./orders/index.js";
import * as status from "./status/index.js";
import * as store from "./store/index.js";

const {
  ORDERS_URL = "http://127.0.0.1:8000",
  STATUS_URL = "http://127.0.0.1:8001",
  STORE_URL = "http://127.0.0.1:8002",
} = process.env;
const ordersApi = new orders.OrdersApi(new orders.Configuration({ basePath: ORDERS_URL }));
const statusApi = new status.StatusApi(new status.Configuration({ basePath: STATUS_URL }));
const itemsApi = new store.ItemsApi(new store.Configuration({ basePath: STORE_URL }));

// An item of our own, so that the demo may run any number of times.
const added = await itemsApi.addItem({ newItem: { sellerId: 1, price: 1000, name: "Demo item" } });
const { itemId } = added;

// Create an order; the same key once more is the same order. The quantity is left out.
const newOrder = { itemId, sellerId: 1, clientId: 1 };
const idempotencyKey = randomUUID();
const created = await ordersApi.createOrderRaw({ newOrder, idempotencyKey });
const { orderId } = await created.value();
console.log(`order ${orderId}: ${created.raw.headers.get("Location")}`);
console.log(`request ${created.raw.headers.get("X-Request-Id")}`);
assert(created.raw.headers.has("Location") && created.raw.headers.has("X-Request-Id"));
const again = await ordersApi.createOrder({ newOrder, idempotencyKey });
assert.equal(again.orderId, orderId, "the same order");

// Wait for the store's decision.
const decided = await statusApi.getOrderStatus({ orderId, waitMs: 5000 });
assert.equal(decided.step, status.OrderStep.Shipping);
console.log(`order ${orderId}: ${decided.step}, ${decided.facts.map((heard) => heard.fact)}`);

const item = await itemsApi.findItem({ itemId });
console.log(`item ${itemId}: ${item.itemName}, ${item.reserved} of ${item.quantity} reserved`);

// Cancel it, and wait for that.
const cancelled = await ordersApi.cancelOrder({ orderId });
console.log(`order ${orderId}: ${cancelled.status}`);
const waitFor = status.OrderStep.Cancelled;
const over = await statusApi.getOrderStatus({ orderId, waitFor, waitMs: 5000 });
assert.equal(over.step, waitFor);
console.log(`order ${orderId}: ${over.step} by the ${over.initiator}: ${over.reason}`);

// Problems have types. They come as the body of a ResponseError.
try {
  await statusApi.getOrderStatus({ orderId: Number.MAX_SAFE_INTEGER });
  assert.fail("an order that is not there was found");
} catch (error) {
  if (!(error instanceof status.ResponseError)) throw error;
  const problem = status.ProblemFromJSON(await error.response.json());
  assert.equal(error.response.status, 404);
  assert.equal(problem.type, status.ProblemType.NOT_FOUND);
  console.log(`404: ${problem.detail}`);
}
try {
  await ordersApi.createOrder({ newOrder: { ...newOrder, quantity: 0 } });
  assert.fail("an order of nothing was taken");
} catch (error) {
  if (!(error instanceof orders.ResponseError)) throw error;
  const problem = orders.ProblemFromJSON(await error.response.json());
  assert.equal(error.response.status, 422);
  assert.equal(problem.type, orders.ProblemType.INVALID_FIELD);
  assert.equal(problem.field, "quantity");
  console.log(`422: ${problem.field}: ${problem.detail}`);
}
