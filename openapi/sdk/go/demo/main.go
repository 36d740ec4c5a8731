// A whole session, by the clients that oapi-codegen makes.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"math"
	"os"
	"time"

	"ordersaga/orders"
	"ordersaga/status"
	"ordersaga/store"
)

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	ordering := must(orders.NewClientWithResponses(cmp.Or(os.Getenv("ORDERS_URL"), "http://127.0.0.1:8000")))
	monitoring := must(status.NewClientWithResponses(cmp.Or(os.Getenv("STATUS_URL"), "http://127.0.0.1:8001")))
	storing := must(store.NewClientWithResponses(cmp.Or(os.Getenv("STORE_URL"), "http://127.0.0.1:8002")))

	// An item of our own, so that the demo may run any number of times.
	added := must(storing.AddItemWithResponse(ctx, nil, store.NewItem{SellerId: 1, Price: 1000, Name: "Demo item"}))
	expect(added.JSON201 != nil, "add", added.Body)
	itemID := added.JSON201.ItemId

	// Create an order; the same key once more is the same order. The quantity is left out.
	key := fmt.Sprintf("demo-%d", time.Now().UnixNano())
	order := orders.NewOrder{ItemId: itemID, SellerId: 1, ClientId: 1}
	withKey := &orders.CreateOrderParams{IdempotencyKey: &key}
	created := must(ordering.CreateOrderWithResponse(ctx, withKey, order))
	expect(created.JSON201 != nil, "create", created.Body)
	id := created.JSON201.OrderId
	fmt.Printf("order %d: %s (%s)\n", id, created.Headers201.Location, created.Headers201.XRequestId)
	again := must(ordering.CreateOrderWithResponse(ctx, withKey, order))
	expect(again.JSON201 != nil && again.JSON201.OrderId == id, "a repetition", again.Body)

	// Wait for the store's decision.
	wait := int64(5000)
	now := must(monitoring.GetOrderStatusWithResponse(ctx, &status.GetOrderStatusParams{OrderId: id, WaitMs: &wait}))
	expect(now.JSON200 != nil && now.JSON200.Step == status.SHIPPING, "shipping", now.Body)
	fmt.Printf("order %d: %s, %d facts\n", id, now.JSON200.Step, len(now.JSON200.Facts))

	found := must(storing.FindItemWithResponse(ctx, &store.FindItemParams{ItemId: itemID}))
	expect(found.JSON200 != nil, "find", found.Body)
	item := found.JSON200
	fmt.Printf("item %d: %s, %d of %d reserved\n", item.ItemId, item.ItemName, item.Reserved, item.Quantity)

	// Cancel it, and wait for that.
	cancelled := must(ordering.CancelOrderWithResponse(ctx, &orders.CancelOrderParams{OrderId: id}))
	expect(cancelled.JSON202 != nil, "cancel", cancelled.Body)
	fmt.Printf("order %d: %s\n", id, cancelled.JSON202.Status)
	end := status.CANCELLED
	until := &status.GetOrderStatusParams{OrderId: id, WaitFor: &end, WaitMs: &wait}
	now = must(monitoring.GetOrderStatusWithResponse(ctx, until))
	expect(now.JSON200 != nil && now.JSON200.Step == end, "cancelled", now.Body)
	fmt.Printf("order %d: %s by the %s: %s\n", id, now.JSON200.Step, *now.JSON200.Initiator, *now.JSON200.Reason)

	// Problems have types, one field per status.
	nowhere := &status.GetOrderStatusParams{OrderId: math.MaxInt64}
	missing := must(monitoring.GetOrderStatusWithResponse(ctx, nowhere))
	problem := missing.ApplicationproblemJSON404
	expect(problem != nil && problem.Type == status.NOTFOUND, "an order that is not there", missing.Body)
	fmt.Println("404:", problem.Detail)
	none := int64(0)
	order.Quantity = &none
	wrong := must(ordering.CreateOrderWithResponse(ctx, nil, order))
	refused := wrong.ApplicationproblemJSON422
	expect(refused != nil && refused.Type == orders.INVALIDFIELD, "an order of nothing", wrong.Body)
	expect(refused.Field != nil && *refused.Field == "quantity", "the field", wrong.Body)
	fmt.Printf("422: %s: %s\n", *refused.Field, refused.Detail)
}

// An error here is of the network or of the decoder: problems are answers.
func must[T any](answer T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return answer
}

func expect(held bool, what string, body []byte) {
	if !held {
		log.Fatalf("%s: unexpected answer: %s", what, body)
	}
}
