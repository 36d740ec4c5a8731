import java.util.UUID;
import ordersaga.orders.api.OrdersApi;
import ordersaga.orders.model.NewOrder;
import ordersaga.status.api.StatusApi;
import ordersaga.status.model.OrderStep;
import ordersaga.store.api.ItemsApi;
import ordersaga.store.model.NewItem;

/** The README's session, by the clients that openapi-generator makes. */
public final class Demo {
  private Demo() {}

  public static void main(String[] args) throws Exception {
    var orders = new OrdersApi();
    var status = new StatusApi();
    var store = new ItemsApi();

    // An item of our own, so that the demo may run any number of times.
    var itemId = store.addItem(new NewItem().sellerId(1L).price(1000L).name("Demo item"), null).getItemId();

    // Create an order; the same key once more is the same order. The quantity is left out.
    var key = UUID.randomUUID().toString();
    var order = new NewOrder().itemId(itemId).sellerId(1L).clientId(1L);
    var created = orders.createOrderWithHttpInfo(order, key, null);
    var id = created.getData().getOrderId();
    var headers = created.getHeaders();
    System.out.printf("order %d: %s (%s)%n", id, headers.get("location"), headers.get("x-request-id"));
    check(id.equals(orders.createOrder(order, key, null).getOrderId()), "the same order");

    // Wait for the store's decision.
    var now = status.getOrderStatus(id, 5000L, null);
    check(now.getStep() == OrderStep.SHIPPING, now);
    System.out.printf("order %d: %s, %d facts%n", id, now.getStep(), now.getFacts().size());

    var item = store.findItem(itemId);
    System.out.printf("item %d: %s, %d of %d reserved%n",
        item.getItemId(), item.getItemName(), item.getReserved(), item.getQuantity());

    // Cancel it, and wait for that.
    System.out.printf("order %d: %s%n", id, orders.cancelOrder(id, null).getStatus());
    now = status.getOrderStatus(id, 5000L, OrderStep.CANCELLED);
    check(now.getStep() == OrderStep.CANCELLED, now);
    System.out.printf("order %d: %s by the %s: %s%n", id, now.getStep(), now.getInitiator(), now.getReason());

    // Problems have types.
    try {
      status.getOrderStatus(Long.MAX_VALUE, null, null);
      throw new AssertionError("no such order");
    } catch (ordersaga.status.ApiException e) {
      var json = ordersaga.status.ApiClient.createDefaultObjectMapper();
      var problem = json.readValue(e.getResponseBody(), ordersaga.status.model.Problem.class);
      check(problem.getType() == ordersaga.status.model.ProblemType.NOT_FOUND, problem);
      System.out.printf("%d: %s%n", e.getCode(), problem.getDetail());
    }
    try {
      orders.createOrder(new NewOrder().itemId(itemId).sellerId(1L).clientId(1L).quantity(0L), null, null);
      throw new AssertionError("no units");
    } catch (ordersaga.orders.ApiException e) {
      var json = ordersaga.orders.ApiClient.createDefaultObjectMapper();
      var problem = json.readValue(e.getResponseBody(), ordersaga.orders.model.Problem.class);
      check(problem.getType() == ordersaga.orders.model.ProblemType.INVALID_FIELD, problem);
      System.out.printf("%d: %s: %s%n", e.getCode(), problem.getField(), problem.getDetail());
    }
  }

  private static void check(boolean held, Object found) {
    if (!held) {
      throw new AssertionError(found);
    }
  }
}
