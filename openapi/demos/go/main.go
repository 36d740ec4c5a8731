// The README's session, by the clients that oapi-codegen makes.
package main

import (
	"context"
	"fmt"
	"log"
	"math"
	"time"

	"ordersaga/orders"
	"ordersaga/status"
	"ordersaga/store"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := demo(ctx); err != nil {
		log.Fatal(err)
	}
}

func demo(ctx context.Context) error {
	ordering, err := orders.NewClientWithResponses("http://127.0.0.1:8000")
	if err != nil {
		return err
	}
	monitoring, err := status.NewClientWithResponses("http://127.0.0.1:8001")
	if err != nil {
		return err
	}
	storing, err := store.NewClientWithResponses("http://127.0.0.1:8002")
	if err != nil {
		return err
	}

	// An item of our own, so that the demo may run any number of times.
	added, err := storing.AddItemWithResponse(ctx, nil, store.NewItem{SellerId: 1, Price: 1000, Name: "Demo item"})
	if err != nil {
		return err
	}
	if added.JSON201 == nil {
		return fmt.Errorf("add: %s", added.Body)
	}
	itemID := added.JSON201.ItemId

	// Create an order; the same key once more is the same order. The quantity is left out.
	key := fmt.Sprintf("demo-%d", time.Now().UnixNano())
	order := orders.NewOrder{ItemId: itemID, SellerId: 1, ClientId: 1}
	withKey := &orders.CreateOrderParams{IdempotencyKey: &key}
	created, err := ordering.CreateOrderWithResponse(ctx, withKey, order)
	if err != nil {
		return err
	}
	if created.JSON201 == nil {
		return fmt.Errorf("create: %s", created.Body)
	}
	id := created.JSON201.OrderId
	fmt.Printf("order %d: %s (%s)\n", id, created.Headers201.Location, created.Headers201.XRequestId)
	again, err := ordering.CreateOrderWithResponse(ctx, withKey, order)
	if err != nil {
		return err
	}
	if again.JSON201 == nil || again.JSON201.OrderId != id {
		return fmt.Errorf("a repetition: %s", again.Body)
	}

	// Wait for the store's decision.
	wait := int64(5000)
	now, err := monitoring.GetOrderStatusWithResponse(ctx, &status.GetOrderStatusParams{OrderId: id, WaitMs: &wait})
	if err != nil {
		return err
	}
	if now.JSON200 == nil || now.JSON200.Step != status.SHIPPING {
		return fmt.Errorf("status: %s", now.Body)
	}
	fmt.Printf("order %d: %s, %d facts\n", id, now.JSON200.Step, len(now.JSON200.Facts))

	found, err := storing.FindItemWithResponse(ctx, &store.FindItemParams{ItemId: itemID})
	if err != nil {
		return err
	}
	if found.JSON200 == nil {
		return fmt.Errorf("find: %s", found.Body)
	}
	item := found.JSON200
	fmt.Printf("item %d: %s, %d of %d reserved\n", item.ItemId, item.ItemName, item.Reserved, item.Quantity)

	// Cancel it, and wait for that.
	cancelled, err := ordering.CancelOrderWithResponse(ctx, &orders.CancelOrderParams{OrderId: id})
	if err != nil {
		return err
	}
	if cancelled.JSON202 == nil {
		return fmt.Errorf("cancel: %s", cancelled.Body)
	}
	fmt.Printf("order %d: %s\n", id, cancelled.JSON202.Status)
	end := status.CANCELLED
	now, err = monitoring.GetOrderStatusWithResponse(ctx, &status.GetOrderStatusParams{OrderId: id, WaitFor: &end, WaitMs: &wait})
	if err != nil {
		return err
	}
	if now.JSON200 == nil || now.JSON200.Step != end {
		return fmt.Errorf("status: %s", now.Body)
	}
	fmt.Printf("order %d: %s by the %s: %s\n", id, now.JSON200.Step, *now.JSON200.Initiator, *now.JSON200.Reason)

	// Problems have types, one field per status.
	missing, err := monitoring.GetOrderStatusWithResponse(ctx, &status.GetOrderStatusParams{OrderId: math.MaxInt64})
	if err != nil {
		return err
	}
	if p := missing.ApplicationproblemJSON404; p == nil || p.Type != status.NOTFOUND {
		return fmt.Errorf("an order that is not there: %s", missing.Body)
	}
	fmt.Println("404:", missing.ApplicationproblemJSON404.Detail)
	none := int64(0)
	order.Quantity = &none
	wrong, err := ordering.CreateOrderWithResponse(ctx, nil, order)
	if err != nil {
		return err
	}
	p := wrong.ApplicationproblemJSON422
	if p == nil || p.Type != orders.INVALIDFIELD || p.Field == nil {
		return fmt.Errorf("a wrong order: %s", wrong.Body)
	}
	fmt.Printf("422: %s: %s\n", *p.Field, p.Detail)
	return nil
}
