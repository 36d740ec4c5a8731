// A whole session, by the clients that openapi-generator makes.
package main

import (
	"cmp"
	"context"
	"errors"
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
	if err := demo(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func demo(ctx context.Context) error {
	ordersAt, statusAt, storeAt := orders.NewConfiguration(), status.NewConfiguration(), store.NewConfiguration()
	ordersAt.Servers[0].URL = cmp.Or(os.Getenv("ORDERS_URL"), ordersAt.Servers[0].URL)
	statusAt.Servers[0].URL = cmp.Or(os.Getenv("STATUS_URL"), statusAt.Servers[0].URL)
	storeAt.Servers[0].URL = cmp.Or(os.Getenv("STORE_URL"), storeAt.Servers[0].URL)
	ordering := orders.NewAPIClient(ordersAt).OrdersAPI
	monitoring := status.NewAPIClient(statusAt).StatusAPI
	storing := store.NewAPIClient(storeAt).ItemsAPI

	// An item of our own, so that the demo may run any number of times.
	added, _, err := storing.AddItem(ctx).NewItem(*store.NewNewItem(1, 1000, "Demo item")).Execute()
	if err != nil {
		return fmt.Errorf("add: %w", err)
	}

	// Create an order; the same key once more is the same order. The quantity is left out.
	order := orders.NewNewOrder(added.ItemId, 1, 1)
	create := ordering.CreateOrder(ctx).NewOrder(*order).IdempotencyKey(fmt.Sprintf("demo-%d", time.Now().UnixNano()))
	created, answer, err := create.Execute()
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	id, location, request := created.OrderId, answer.Header.Get("Location"), answer.Header.Get("X-Request-Id")
	if location == "" || request == "" {
		return fmt.Errorf("create: headers: %v", answer.Header)
	}
	fmt.Printf("order %d: %s (%s)\n", id, location, request)
	again, _, err := create.Execute()
	if err != nil {
		return fmt.Errorf("a repetition: %w", err)
	}
	if again.OrderId != id {
		return fmt.Errorf("a repetition: order %d, not %d", again.OrderId, id)
	}

	// Wait for the store's decision.
	now, _, err := monitoring.GetOrderStatus(ctx).OrderId(id).WaitMs(5000).Execute()
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if now.Step != status.SHIPPING {
		return fmt.Errorf("status: %s, not shipping", now.Step)
	}
	fmt.Printf("order %d: %s, %d facts\n", id, now.Step, len(now.Facts))

	item, _, err := storing.FindItem(ctx).ItemId(added.ItemId).Execute()
	if err != nil {
		return fmt.Errorf("find: %w", err)
	}
	fmt.Printf("item %d: %s, %d of %d reserved\n", item.ItemId, item.ItemName, item.Reserved, item.Quantity)

	// Cancel it, and wait for that.
	cancelled, _, err := ordering.CancelOrder(ctx).OrderId(id).Execute()
	if err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	fmt.Printf("order %d: %s\n", id, cancelled.Status)
	now, _, err = monitoring.GetOrderStatus(ctx).OrderId(id).WaitFor(status.CANCELLED).WaitMs(5000).Execute()
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if now.Step != status.CANCELLED {
		return fmt.Errorf("status: %s, not cancelled", now.Step)
	}
	fmt.Printf("order %d: %s by the %s: %s\n", id, now.Step, now.GetInitiator(), now.GetReason())

	// Problems have types. They are the models of errors.
	_, _, err = monitoring.GetOrderStatus(ctx).OrderId(math.MaxInt64).Execute()
	var missing *status.GenericOpenAPIError
	if !errors.As(err, &missing) {
		return fmt.Errorf("an order that is not there: %v", err)
	}
	problem, ok := missing.Model().(status.Problem)
	if !ok || problem.Type != status.NOT_FOUND {
		return fmt.Errorf("an order that is not there: %s", missing.Body())
	}
	fmt.Printf("%d: %s\n", problem.Status, problem.Detail)
	order.SetQuantity(0)
	_, _, err = ordering.CreateOrder(ctx).NewOrder(*order).Execute()
	var refused *orders.GenericOpenAPIError
	if !errors.As(err, &refused) {
		return fmt.Errorf("an order of nothing: %v", err)
	}
	wrong, ok := refused.Model().(orders.Problem)
	if !ok || wrong.Type != orders.INVALID_FIELD || wrong.GetField() != "quantity" {
		return fmt.Errorf("an order of nothing: %s", refused.Body())
	}
	fmt.Printf("%d: %s: %s\n", wrong.Status, wrong.GetField(), wrong.Detail)
	return nil
}
