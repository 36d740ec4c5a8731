//! The session of the README: an order's life, and two errors.

use anyhow::{Context, Result};

use super::{Folder, Request};

struct Step {
    name: &'static str,
    operation: &'static str,
    /// Parameters of the query, or fields of the body, that differ from the example.
    set: &'static [(&'static str, &'static str)],
    status: u16,
    /// As JSON.
    expected: &'static [(&'static str, &'static str)],
}

const STEPS: [Step; 8] = [
    Step {
        name: "Add an item of our own",
        operation: "add_item",
        set: &[],
        status: 201,
        expected: &[],
    },
    Step { name: "Order it", operation: "create_order", set: &[], status: 201, expected: &[] },
    Step {
        name: "Wait until it is shipping",
        operation: "get_order_status",
        set: &[("wait_ms", "5000")],
        status: 200,
        expected: &[("step", "\"SHIPPING\"")],
    },
    Step {
        name: "Find the item",
        operation: "find_item",
        set: &[],
        status: 200,
        expected: &[("is_reserved", "true")],
    },
    Step {
        name: "Cancel the order",
        operation: "cancel_order",
        set: &[],
        status: 202,
        expected: &[("status", "\"CANCELLING\"")],
    },
    Step {
        name: "Wait until it is cancelled",
        operation: "get_order_status",
        set: &[("wait_ms", "5000"), ("wait_for", "CANCELLED")],
        status: 200,
        expected: &[("step", "\"CANCELLED\""), ("reason", "\"CANCELLED_BY_CLIENT\"")],
    },
    Step {
        name: "An order that there is not: 404",
        operation: "get_order_status",
        set: &[("order_id", "9223372036854775807"), ("wait_ms", "0")],
        status: 404,
        expected: &[("type", "\"urn:ordersaga:problem:not-found\"")],
    },
    Step {
        name: "A wrong quantity: 422",
        operation: "create_order",
        set: &[("quantity", "0")],
        status: 422,
        expected: &[("type", "\"urn:ordersaga:problem:invalid-field\""), ("field", "\"quantity\"")],
    },
];

/// The folder, made of the requests in the services' folders.
pub(super) fn folder(services: &[Folder]) -> Result<Folder> {
    let requests = STEPS.iter().enumerate().map(|(index, step)| {
        let mut known = services.iter().flat_map(|folder| &folder.requests);
        let known = known.find(|request| request.operation == step.operation);
        let known = known.with_context(|| format!("there is no operation {}", step.operation))?;
        request(step, index + 1, known.clone())
    });
    Ok(Folder {
        name: "Session".to_owned(),
        description: "An item, an order for it, the order's end, and two errors.".to_owned(),
        requests: requests.collect::<Result<_>>()?,
    })
}

fn request(step: &Step, number: usize, mut request: Request) -> Result<Request> {
    request.name = format!("{number}. {}", step.name);
    for (name, value) in step.set {
        set(&mut request, name, value)
            .with_context(|| format!("{} takes no {name}", step.operation))?;
    }
    request.status = step.status;
    let expected = step.expected.iter();
    request.expected = expected.map(|&(name, json)| (name.to_owned(), json.to_owned())).collect();
    if step.status >= 400 {
        request.remembered.clear();
    }
    Ok(request)
}

/// Nothing if the request has no such parameter or field.
fn set(request: &mut Request, name: &str, value: &str) -> Option<()> {
    if let Some(field) = request.query.iter_mut().find(|field| field.name == name) {
        (field.value, field.is_sent) = (value.to_owned(), true);
        return Some(());
    }
    *request.body.as_mut()?.get_mut(name)? = value.parse().ok()?;
    Some(())
}
