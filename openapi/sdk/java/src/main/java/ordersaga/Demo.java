package ordersaga;

import java.util.UUID;
import ordersaga.orders.api.OrdersApi;
import ordersaga.orders.model.NewOrder;
import ordersaga.status.api.StatusApi;
import ordersaga.status.model.OrderStep;
import ordersaga.store.api.ItemsApi;
import ordersaga.store.model.NewItem;

/** A whole session, by the clients that openapi-generator makes. */
public final class Demo {
  private Demo() {}

  public static void main(String[] args) throws Exception {
    var ordersClient = new ordersaga.orders.ApiClient();
    var statusClient = new ordersaga.status.ApiClient();
    var storeClient = new ordersaga.store.ApiClient();
    ordersClient.updateBaseUri(variable("ORDERS_URL", "http://127.0.0.1:8000"));
    statusClient.updateBaseUri(variable("STATUS_URL", "http://127.0.0.1:8001"));
    storeClient.updateBaseUri(variable("STORE_URL", "http://127.0.0.1:8002"));
    var orders = new OrdersApi(ordersClient);
    var status = new StatusApi(statusClient);
    var store = new ItemsApi(storeClient);

    // An item of our own, so that the demo may run any number of times.
    var itemId = store.addItem(new NewItem().sellerId(1L).price(1000L).name("Demo item"), null).getItemId();

    // Create an order; the same key once more is the same order. The quantity is left out.
    var key = UUID.randomUUID().toString();
    var order = new NewOrder().itemId(itemId).sellerId(1L).clientId(1L);
    var created = orders.createOrderWithHttpInfo(order, key, null);
    var id = created.getData().getOrderId();
    var location = created.getHeaders().get("location").get(0);
    var request = created.getHeaders().get("x-request-id").get(0);
    System.out.printf("order %d: %s (%s)%n", id, location, request);
    check(id.equals(orders.createOrder(order, key, null).getOrderId()), "a repetition is another order");

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

    // Problems have types. They are the bodies of exceptions.
    try {
      status.getOrderStatus(Long.MAX_VALUE, null, null);
      throw new AssertionError("an order that is not there was found");
    } catch (ordersaga.status.ApiException e) {
      var json = statusClient.getObjectMapper();
      var problem = json.readValue(e.getResponseBody(), ordersaga.status.model.Problem.class);
      check(e.getCode() == 404, problem);
      check(problem.getType() == ordersaga.status.model.ProblemType.NOT_FOUND, problem);
      System.out.printf("404: %s%n", problem.getDetail());
    }
    try {
      orders.createOrder(new NewOrder().itemId(itemId).sellerId(1L).clientId(1L).quantity(0L), null, null);
      throw new AssertionError("an order of nothing was taken");
    } catch (ordersaga.orders.ApiException e) {
      var json = ordersClient.getObjectMapper();
      var problem = json.readValue(e.getResponseBody(), ordersaga.orders.model.Problem.class);
      check(e.getCode() == 422, problem);
      check(problem.getType() == ordersaga.orders.model.ProblemType.INVALID_FIELD, problem);
      check("quantity".equals(problem.getField()), problem);
      System.out.printf("422: %s: %s%n", problem.getField(), problem.getDetail());
    }
  }

  private static String variable(String name, String otherwise) {
    var value = System.getenv(name);
    return value == null ? otherwise : value;
  }

  private static void check(boolean held, Object found) {
    if (!held) {
      throw new AssertionError(found);
    }
  }
}
