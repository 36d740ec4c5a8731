// A whole session, by openapi-fetch with the types that openapi-typescript makes.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths as OrderPaths } from "./orders.js";
import type { paths as StatusPaths } from "./status.js";
import type { paths as StorePaths } from "./store.js";

type Problem = components["schemas"]["Problem"];

const {
  ORDERS_URL = "http://127.0.0.1:8000",
  STATUS_URL = "http://127.0.0.1:8001",
  STORE_URL = "http://127.0.0.1:8002",
} = process.env;
const orders = createClient<OrderPaths>({ baseUrl: ORDERS_URL });
const status = createClient<StatusPaths>({ baseUrl: STATUS_URL });
const store = createClient<StorePaths>({ baseUrl: STORE_URL });

/** What was asked for; a problem is thrown. */
function ok<T>(answer: { data?: T; error?: Problem }): T {
  if (answer.data === undefined) throw new Error(answer.error?.detail ?? "no answer");
  return answer.data;
}

// An item of our own, so that the demo may run any number of times.
const added = ok(
  await store.POST("/api/v1/items/add", { body: { seller_id: 1, price: 1000, name: "Demo item" } }),
);
const { item_id } = added;

// Create an order; the same key once more is the same order. The quantity is left out.
const body = { item_id, seller_id: 1, client_id: 1 };
const header = { "Idempotency-Key": randomUUID() };
const create = () => orders.POST("/api/v1/orders/create", { params: { header }, body });
const created = await create();
const { order_id } = ok(created);
console.log(`order ${order_id}: ${created.response.headers.get("Location")}`);
console.log(`request ${created.response.headers.get("X-Request-Id")}`);
assert(created.response.headers.has("Location") && created.response.headers.has("X-Request-Id"));
assert.equal(ok(await create()).order_id, order_id, "the same order");

// Wait for the store's decision.
const decided = ok(
  await status.GET("/api/v1/status", { params: { query: { order_id, wait_ms: 5000 } } }),
);
assert.equal(decided.step, "SHIPPING");
console.log(`order ${order_id}: ${decided.step}, ${decided.facts.map((heard) => heard.fact)}`);

const item = ok(await store.GET("/api/v1/items/find", { params: { query: { item_id } } }));
console.log(`item ${item_id}: ${item.item_name}, ${item.reserved} of ${item.quantity} reserved`);

// Cancel it, and wait for that.
const cancelled = await orders.POST("/api/v1/orders/cancel", { params: { query: { order_id } } });
console.log(`order ${order_id}: ${ok(cancelled).status}`);
const over = ok(
  await status.GET("/api/v1/status", {
    params: { query: { order_id, wait_for: "CANCELLED", wait_ms: 5000 } },
  }),
);
assert.equal(over.step, "CANCELLED");
console.log(`order ${order_id}: ${over.step} by the ${over.initiator}: ${over.reason}`);

// Problems have types: `error` is there exactly when `data` is not.
const unknown = Number.MAX_SAFE_INTEGER;
const missing = await status.GET("/api/v1/status", { params: { query: { order_id: unknown } } });
assert.equal(missing.response.status, 404);
assert.equal(missing.error?.type, "urn:ordersaga:problem:not-found");
console.log(`404: ${missing.error?.detail}`);

const wrong = await orders.POST("/api/v1/orders/create", { body: { ...body, quantity: 0 } });
assert.equal(wrong.response.status, 422);
assert.equal(wrong.error?.type, "urn:ordersaga:problem:invalid-field");
assert.equal(wrong.error?.field, "quantity");
console.log(`422: ${wrong.error?.field}: ${wrong.error?.detail}`);
