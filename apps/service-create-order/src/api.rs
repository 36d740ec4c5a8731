//! The HTTP API: create, cancel and [`find`].

pub(crate) mod find;

use ordersaga_contract::OrderId;
use ordersaga_runtime::http::{
    About, Access, AsciiText, Bounded, Failure, IDEMPOTENCY_KEY, Id, JsonBody, Link, List,
    LookupFailure, Principal, Problem, ProblemType, Scope, Shed, given,
};
use poem::http::HeaderMap;
use poem_openapi::param::{Header, Query};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi, Tags};
use sagabus::{GroupCommit, Outbox, Rejected};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::desk::{Answer, BATCH, Command, Key, Placement};

/// What the API says of itself.
pub(crate) const ABOUT: About = About {
    name: crate::NAME,
    title: "Create order",
    version: env!("CARGO_PKG_VERSION"),
    description: "Takes and cancels orders. An order accepted here is published to the topic \
                  `incoming` and ends, in every case, as SHIPPING or CANCELLED: \
                  service-monitoring-order says which.",
    server: "http://127.0.0.1:8000",
    location: "http://localhost:8001/api/v1/status?order_id=1",
    access: &[
        ("create_order", Access::Needs(Scope::OrdersWrite)),
        ("create_orders", Access::Needs(Scope::OrdersWrite)),
        ("cancel_order", Access::Needs(Scope::OrdersWrite)),
        ("find_order", Access::Needs(Scope::OrdersRead)),
    ],
    links: &[
        Link {
            from: ("create_order", 201),
            to: "cancel_order",
            elsewhere: None,
            field: "order_id",
            description: "Cancels the order.",
        },
        Link {
            from: ("create_order", 201),
            to: "get_order_status",
            elsewhere: Some("http://127.0.0.1:8001/openapi.json#/paths/~1api~1v1~1status/get"),
            field: "order_id",
            description: "Tells how far the order is.",
        },
    ],
    // Go makes constants of these, beside a type named Client.
    variants: &[("CancelInitiator", &["BY_CLIENT", "BY_STORE", "BY_DEADLINE"])],
};

/// Where many orders are placed at once, and how long such a request may be: a thousand orders with
/// the longest ids, and keys as long as may be, of letters and digits.
pub(crate) const BULK_PATH: &str = "/api/v1/orders/create-many";
pub(crate) const BULK_BYTES: usize = 512 * 1_024;

/// The operations and what they need.
pub(crate) struct Api {
    orders: GroupCommit<Command, Answer>,
    bulks: GroupCommit<Vec<Command>, Vec<Answer>>,
    outbox: Outbox,
    outbox_limit: i64,
    status_url: String,
}

/// An order to place.
#[derive(Object, Deserialize, Serialize)]
#[oai(example)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    /// The item wanted.
    item_id: Id,
    /// The item's seller; an order that names another is refused.
    seller_id: Id,
    /// Who orders.
    client_id: Id,
    /// Units wanted.
    #[serde(default = "one")]
    #[oai(default = "one")]
    quantity: Bounded<1, 1000>,
}

impl Example for NewOrder {
    /// Of the item that a fresh store has for this.
    fn example() -> Self {
        Self { item_id: id(1_000), seller_id: id(1), client_id: id(7), quantity: one() }
    }
}

impl NewOrder {
    /// The command that places it. 403 if its client is not the principal's.
    fn place(
        self,
        key: Option<AsciiText<1, 255>>,
        traceparent: Option<String>,
        principal: &Principal,
    ) -> Result<Command, Failure> {
        principal.act_for(self.client_id.into(), "client_id")?;
        Ok(Command::Place(Placement {
            item_id: self.item_id.into(),
            seller_id: self.seller_id.into(),
            client_id: self.client_id.into(),
            quantity: self.quantity.into(),
            key: key.map(|key| Key::new(principal, key.as_str())),
            traceparent,
        }))
    }
}

/// An order to place with others.
#[derive(Object, Deserialize, Serialize)]
#[oai(example, skip_serializing_if_is_none)]
#[serde(deny_unknown_fields)]
struct BulkOrder {
    /// The item wanted.
    item_id: Id,
    /// The item's seller; an order that names another is refused.
    seller_id: Id,
    /// Who orders.
    client_id: Id,
    /// Units wanted.
    #[serde(default = "one")]
    #[oai(default = "one")]
    quantity: Bounded<1, 1000>,
    /// A value of the client's, unique to this order. It works as the header `Idempotency-Key`
    /// does for a single order.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<AsciiText<1, 255>>,
}

impl Example for BulkOrder {
    fn example() -> Self {
        let NewOrder { item_id, seller_id, client_id, quantity } = NewOrder::example();
        Self { item_id, seller_id, client_id, quantity, idempotency_key: None }
    }
}

/// Orders to place together.
#[derive(Object, Deserialize, Serialize)]
#[oai(example)]
#[serde(deny_unknown_fields)]
struct NewOrders {
    /// The orders, 1 to 1,000 of them.
    orders: List<BulkOrder, 1, BATCH>,
}

impl Example for NewOrders {
    fn example() -> Self {
        let two = vec![BulkOrder::example(), BulkOrder::example()];
        Self { orders: List::new(two).expect("there are few") }
    }
}

fn id(number: i64) -> Id {
    Id::new(number).expect("ids are positive")
}

/// An order, as the document shows it.
fn an_order() -> Id {
    id(1)
}

fn one() -> Bounded<1, 1000> {
    const ONE: Bounded<1, 1000> = Bounded::new(1).unwrap();
    ONE
}

/// The order's id.
#[derive(Object, Serialize)]
#[oai(example)]
struct OrderCreated {
    /// Counted from 1.
    order_id: i64,
}

impl Example for OrderCreated {
    fn example() -> Self {
        Self { order_id: 1 }
    }
}

/// What became of each order.
#[derive(Object, Serialize)]
#[oai(example)]
struct OrdersCreated {
    /// One answer for each order of the request, in its place.
    orders: Vec<BulkAnswer>,
}

impl Example for OrdersCreated {
    fn example() -> Self {
        Self { orders: vec![BulkAnswer::example(), BulkAnswer::refused(Failure::key_reused())] }
    }
}

/// What became of one order of many: it has an `order_id` or a `problem`.
#[derive(Object, Serialize)]
#[oai(example, skip_serializing_if_is_none)]
struct BulkAnswer {
    /// The order's id, if it is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<i64>,
    /// Whether an earlier request under this key placed it, or an earlier order of this request.
    is_replayed: bool,
    /// Why it is not accepted, as the answer to a single order would say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

impl Example for BulkAnswer {
    fn example() -> Self {
        Self { order_id: Some(1), is_replayed: false, problem: None }
    }
}

impl From<Answer> for BulkAnswer {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Placed { order, is_replayed } => {
                Self { order_id: Some(order.get()), is_replayed, problem: None }
            }
            other => Self::refused(refusal(&other)),
        }
    }
}

impl BulkAnswer {
    fn refused(mut failure: Failure) -> Self {
        if failure.kind() == ProblemType::IdempotencyKeyReused {
            failure = failure.with_field("idempotency_key");
        }
        Self { order_id: None, is_replayed: false, problem: Some(failure.into_problem(None)) }
    }
}

/// The cancellation is on its way.
#[derive(Object, Serialize)]
#[oai(example)]
struct OrderCancelled {
    /// The order.
    order_id: i64,
    /// That it is being cancelled.
    status: Cancelling,
}

impl Example for OrderCancelled {
    fn example() -> Self {
        Self { order_id: 1, status: Cancelling::Cancelling }
    }
}

/// What was done for the order is being undone. Its status at service-monitoring-order tells when.
#[derive(Enum, Serialize)]
#[oai(rename = "CancellationStatus", rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Cancelling {
    /// The only one.
    Cancelling,
}

#[derive(ApiResponse)]
enum Created {
    /// The order is accepted and will be SHIPPING or CANCELLED.
    #[oai(status = 201)]
    Created(
        JsonBody<OrderCreated>,
        /// Where the order's status is.
        #[oai(header = "Location")]
        String,
        /// That the order was placed by an earlier request under this key, and not by this one.
        #[oai(header = "Idempotent-Replayed")]
        Option<bool>,
    ),
}

#[derive(ApiResponse)]
enum CreatedMany {
    /// Each order has its answer.
    #[oai(status = 200)]
    Answered(JsonBody<OrdersCreated>),
}

#[derive(ApiResponse)]
enum Cancelled {
    /// The order is cancelled here; the others compensate asynchronously. Saying it again changes
    /// nothing and answers the same.
    #[oai(status = 202)]
    Accepted(
        JsonBody<OrderCancelled>,
        /// That an earlier request under this key has cancelled it.
        #[oai(header = "Idempotent-Replayed")]
        Option<bool>,
    ),
}

impl Api {
    pub(crate) fn new(
        config: &Config,
        orders: GroupCommit<Command, Answer>,
        bulks: GroupCommit<Vec<Command>, Vec<Answer>>,
        outbox: Outbox,
    ) -> Self {
        Self {
            orders,
            bulks,
            outbox,
            outbox_limit: config.outbox_limit,
            status_url: config.status_url.clone(),
        }
    }

    /// Lets a group commit have it, unless more than so many events wait to be published.
    async fn submit<Q, A>(
        &self,
        group: &GroupCommit<Q, A>,
        request: Q,
        most: i64,
    ) -> Result<A, Failure> {
        if self.outbox.waiting() > most {
            return Err(Failure::shed(Shed::Outbox));
        }
        group.submit(request).await.map_err(|rejected| match rejected {
            Rejected::Full => Failure::shed(Shed::Queue),
            Rejected::Stopping => Failure::unavailable(rejected),
            Rejected::Undecided => Failure::new(ProblemType::Timeout, UNDECIDED),
        })
    }
}

#[derive(Tags)]
enum Tag {
    /// Placing, cancelling and finding orders.
    Orders,
}

#[OpenApi(tag = "Tag::Orders")]
impl Api {
    /// Place an order
    ///
    /// Answers as soon as the order is stored; the saga then runs by itself. With an
    /// `Idempotency-Key` a request may be repeated safely: the same key and body give the same
    /// order, the same key with another request is an error. A request that comes while another
    /// with its key is being handled waits for the same answer. While too many keys are remembered
    /// a request under a new one is refused (503); none is forgotten before its time.
    #[oai(path = "/api/v1/orders/create", method = "post", operation_id = "create_order")]
    async fn create(
        &self,
        principal: Principal,
        body: JsonBody<NewOrder>,
        /// A value of the client's, unique to this order, of 1 to 255 characters.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<AsciiText<1, 255>>>,
        /// W3C trace context, carried along with every event of the order; ignored if it is
        /// malformed or given twice.
        traceparent: Header<Option<String>>,
    ) -> Result<Created, Failure> {
        let command = body.0.place(idempotency_key.0, traceparent.0, &principal)?;
        match self.submit(&self.orders, command, self.outbox_limit).await? {
            Answer::Placed { order, is_replayed } => Ok(Created::Created(
                JsonBody(OrderCreated { order_id: order.get() }),
                format!("{}?order_id={order}", self.status_url),
                is_replayed.then_some(true),
            )),
            other => Err(refusal(&other)),
        }
    }

    /// Place many orders
    ///
    /// Up to 1,000 orders, stored together in one transaction: the cheapest way to place them. Each
    /// order has its own answer, in the place it has in the request, and may have its own
    /// `idempotency_key`: with them a request may be repeated safely, as a whole or in part. A key
    /// for all of them, as a header, is refused (400). If any field is wrong, nothing is done (422);
    /// if the database cannot be reached, the answer is that of a single order (503, 504).
    #[oai(path = "/api/v1/orders/create-many", method = "post", operation_id = "create_orders")]
    async fn create_many(
        &self,
        principal: Principal,
        body: JsonBody<NewOrders>,
        headers: &HeaderMap,
        /// W3C trace context, carried along with every event of the orders; ignored if it is
        /// malformed or given twice.
        traceparent: Header<Option<String>>,
    ) -> Result<CreatedMany, Failure> {
        // It would be taken for a promise.
        if headers.contains_key(IDEMPOTENCY_KEY) {
            let detail = "each order has its own, in its field idempotency_key";
            return Err(Failure::invalid_parameter(IDEMPOTENCY_KEY, detail));
        }
        let commands = body.0.orders.into_vec().into_iter().map(|order| {
            let BulkOrder { item_id, seller_id, client_id, quantity, idempotency_key } = order;
            let order = NewOrder { item_id, seller_id, client_id, quantity };
            order.place(idempotency_key, traceparent.0.clone(), &principal)
        });
        let commands = commands.collect::<Result<_, _>>()?;
        let answers = self.submit(&self.bulks, commands, self.outbox_limit).await?;
        if let [first @ (Answer::ReadOnly | Answer::Undecided), rest @ ..] = &answers[..]
            && rest.iter().all(|answer| answer == first)
        {
            return Err(refusal(first));
        }
        let orders = answers.into_iter().map(BulkAnswer::from).collect();
        Ok(CreatedMany::Answered(JsonBody(OrdersCreated { orders })))
    }

    /// Cancel an order
    ///
    /// The compensating transaction: the order is over, and what was reserved for it is given back.
    /// Saying it again changes nothing. An `Idempotency-Key` works as with a new order; the answer
    /// that there is no such order leaves the key unused.
    #[oai(path = "/api/v1/orders/cancel", method = "post", operation_id = "cancel_order")]
    async fn cancel(
        &self,
        principal: Principal,
        /// The order to cancel.
        #[oai(example = "an_order")]
        order_id: Query<Id>,
        /// A value of the client's, unique to this cancellation, of 1 to 255 characters.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<AsciiText<1, 255>>>,
    ) -> Result<Cancelled, LookupFailure> {
        let order: OrderId = order_id.0.into();
        let key = idempotency_key.0.map(|key| Key::new(&principal, key.as_str()));
        let cancel = Command::Cancel { order, of: principal.client(), key };
        // Orders that were taken can be cancelled when no more are; but of old ones there may be
        // any number, so that their events need a bound as well.
        let most = self.outbox_limit.saturating_mul(2);
        match self.submit(&self.orders, cancel, most).await? {
            Answer::Unknown => Err(LookupFailure::not_found(UNKNOWN)),
            Answer::Cancelled { is_replayed } => {
                let order_id = order.get();
                let cancelled = OrderCancelled { order_id, status: Cancelling::Cancelling };
                Ok(Cancelled::Accepted(JsonBody(cancelled), is_replayed.then_some(true)))
            }
            other => Err(refusal(&other).into()),
        }
    }
}

const UNKNOWN: &str = "There is no order with this order_id.";
const UNDECIDED: &str = "The database did not answer in time: the request may or may not have had \
                         its effect. Repeating it with the same Idempotency-Key is safe.";

fn refusal(answer: &Answer) -> Failure {
    match answer {
        Answer::KeyReused => Failure::key_reused(),
        Answer::KeysFull => Failure::shed(Shed::Keys),
        Answer::ReadOnly => Failure::unavailable(sagabus::ReadOnly),
        Answer::Undecided => Failure::new(ProblemType::Timeout, UNDECIDED),
        Answer::Refused => Failure::internal(anyhow::anyhow!("the database refuses the command")),
        Answer::Placed { .. } | Answer::Cancelled { .. } | Answer::Unknown => {
            Failure::internal(anyhow::anyhow!("an answer to another command"))
        }
    }
}
