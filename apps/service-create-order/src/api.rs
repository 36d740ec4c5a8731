//! The HTTP API: create and cancel.

use ordersaga_contract::OrderId;
use ordersaga_runtime::group_commit::{GroupCommit, Rejected};
use ordersaga_runtime::http::{
    About, AsciiText, Bounded, Failure, Id, JsonBody, Link, LookupFailure, ProblemType, Shed,
};
use ordersaga_runtime::outbox::Outbox;
use ordersaga_runtime::postgres::ReadOnly;
use poem_openapi::param::{Header, Query};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi, Tags};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::desk::{Answer, Command, Key, Placement};

/// What the API says of itself.
pub(crate) const ABOUT: About = About {
    name: crate::NAME,
    title: "Create order",
    version: env!("CARGO_PKG_VERSION"),
    description: "Takes and cancels orders. An order accepted here is published to the topic \
                  `incoming` and ends, in every case, as SHIPPING or CANCELLED: \
                  service-monitoring-order says which.",
    server: "http://127.0.0.1:8000",
    links: &[Link {
        from: ("create_order", 201),
        to: "cancel_order",
        field: "order_id",
        description: "Cancels the order.",
    }],
    variants: &[],
};

/// The operations and what they need.
pub(crate) struct Api {
    orders: GroupCommit<Command, Answer>,
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
    /// Of the items that a fresh store has.
    fn example() -> Self {
        Self { item_id: id(1), seller_id: id(1), client_id: id(7), quantity: one() }
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
    ),
}

#[derive(ApiResponse)]
enum Cancelled {
    /// The order is cancelled here; the others compensate asynchronously. Saying it again changes
    /// nothing and answers the same.
    #[oai(status = 202)]
    Accepted(JsonBody<OrderCancelled>),
}

impl Api {
    pub(crate) fn new(
        config: &Config,
        orders: GroupCommit<Command, Answer>,
        outbox: Outbox,
    ) -> Self {
        Self {
            orders,
            outbox,
            outbox_limit: config.outbox_limit,
            status_url: config.status_url.clone(),
        }
    }

    /// Lets the group commit have it, unless more than so many events wait to be published.
    async fn submit(&self, command: Command, most: i64) -> Result<Answer, Failure> {
        if self.outbox.waiting() > most {
            return Err(Failure::shed(Shed::Outbox));
        }
        self.orders.submit(command).await.map_err(|rejected| match rejected {
            Rejected::Full => Failure::shed(Shed::Queue),
            Rejected::Stopping => Failure::unavailable(rejected),
            Rejected::Undecided => Failure::new(ProblemType::Timeout, UNDECIDED),
        })
    }
}

#[derive(Tags)]
enum Tag {
    /// Placing and cancelling orders.
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
        body: JsonBody<NewOrder>,
        /// A value of the client's, unique to this order, of 1 to 255 characters.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<AsciiText<1, 255>>>,
        /// W3C trace context, carried along with every event of the order; ignored if it is
        /// malformed or given twice.
        traceparent: Header<Option<String>>,
    ) -> Result<Created, Failure> {
        let NewOrder { item_id, seller_id, client_id, quantity } = body.0;
        let placement = Placement {
            item_id: item_id.into(),
            seller_id: seller_id.into(),
            client_id: client_id.into(),
            quantity: quantity.into(),
            key: idempotency_key.0.map(AsciiText::into_string).map(Key::new),
            traceparent: traceparent.0,
        };
        match self.submit(Command::Place(placement), self.outbox_limit).await? {
            Answer::Placed(order_id) => Ok(Created::Created(
                JsonBody(OrderCreated { order_id: order_id.get() }),
                format!("{}?order_id={order_id}", self.status_url),
            )),
            other => Err(refusal(&other)),
        }
    }

    /// Cancel an order
    ///
    /// The compensating transaction: the order is over, and what was reserved for it is given back.
    /// Saying it again changes nothing. An `Idempotency-Key` works as with a new order; the answer
    /// that there is no such order leaves the key unused.
    #[oai(path = "/api/v1/orders/cancel", method = "post", operation_id = "cancel_order")]
    async fn cancel(
        &self,
        /// The order to cancel.
        #[oai(example = "an_order")]
        order_id: Query<Id>,
        /// A value of the client's, unique to this cancellation, of 1 to 255 characters.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<AsciiText<1, 255>>>,
    ) -> Result<Cancelled, LookupFailure> {
        let order: OrderId = order_id.0.into();
        let key = idempotency_key.0.map(AsciiText::into_string).map(Key::new);
        // Orders that were taken can be cancelled when no more are; but of old ones there may be
        // any number, so that their events need a bound as well.
        let most = self.outbox_limit.saturating_mul(2);
        match self.submit(Command::Cancel { order, key }, most).await? {
            Answer::Unknown => {
                Err(LookupFailure::not_found("There is no order with this order_id."))
            }
            Answer::Cancelled => Ok(Cancelled::Accepted(JsonBody(OrderCancelled {
                order_id: order.get(),
                status: Cancelling::Cancelling,
            }))),
            other => Err(refusal(&other).into()),
        }
    }
}

const UNDECIDED: &str = "The database did not answer in time: the request may or may not have had \
                         its effect. Repeating it with the same Idempotency-Key is safe.";

fn refusal(answer: &Answer) -> Failure {
    match answer {
        Answer::KeyReused => Failure::key_reused(),
        Answer::KeysFull => Failure::shed(Shed::Keys),
        Answer::ReadOnly => Failure::unavailable(ReadOnly),
        Answer::Undecided => Failure::new(ProblemType::Timeout, UNDECIDED),
        Answer::Refused => Failure::internal(anyhow::anyhow!("the database refuses the command")),
        Answer::Placed(_) | Answer::Cancelled | Answer::Unknown => {
            Failure::internal(anyhow::anyhow!("an answer to another command"))
        }
    }
}
