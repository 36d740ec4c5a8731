//! An order's life in service-create-order: `PLACED → RESERVED → CANCELLED`, or
//! `PLACED → CANCELLED`. Nothing leaves `CANCELLED`.

use ordersaga_contract::{Cancellation, EventKind, Initiator, Reason};

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderState {
    /// Accepted; the store has not answered.
    Placed,
    /// The store holds stock for it.
    Reserved,
    /// Over.
    Cancelled,
}

/// What can happen to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// The store reserved.
    StoreReserved,
    /// The store refused.
    StoreRefused(Reason),
    /// The client cancels.
    ClientCancels,
    /// The order's deadline passed.
    DeadlinePassed,
}

/// A change: the new state, why if it is the end, and the event that tells the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transition {
    /// The state to store.
    pub state: OrderState,
    /// Who ended the order and why, if this ends it.
    pub cancellation: Option<Cancellation>,
    /// What to publish with the change.
    pub publish: Option<EventKind>,
}

/// What `input` changes for an order in `state`; `None` if nothing, as for any input said twice.
pub fn advance(state: OrderState, input: Input) -> Option<Transition> {
    use Input::{ClientCancels, DeadlinePassed, StoreRefused, StoreReserved};
    use OrderState::{Cancelled, Placed, Reserved};
    match (state, input) {
        (Placed, StoreReserved) => {
            Some(Transition { state: Reserved, cancellation: None, publish: None })
        }
        // The store has told everybody already.
        (Placed, StoreRefused(reason)) => Some(Transition {
            publish: None,
            ..cancel(Cancellation { initiator: Initiator::Store, reason })
        }),
        (Placed | Reserved, ClientCancels) => Some(cancel(Cancellation {
            initiator: Initiator::Client,
            reason: Reason::CancelledByClient,
        })),
        (Placed, DeadlinePassed) => Some(cancel(Cancellation {
            initiator: Initiator::Deadline,
            reason: Reason::DeadlineExceeded,
        })),
        (Reserved, StoreReserved | StoreRefused(_) | DeadlinePassed) | (Cancelled, _) => None,
    }
}

fn cancel(cancellation: Cancellation) -> Transition {
    Transition {
        state: OrderState::Cancelled,
        cancellation: Some(cancellation),
        publish: Some(EventKind::OrderReset(cancellation)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inputs() -> impl Strategy<Value = Vec<Input>> {
        let any = prop::sample::select(vec![
            Input::StoreReserved,
            Input::StoreRefused(Reason::OutOfStock),
            Input::ClientCancels,
            Input::DeadlinePassed,
        ]);
        prop::collection::vec(any, 0..12)
    }

    proptest! {
        #[test]
        fn an_order_ends_once_and_stays_ended(inputs in inputs()) {
            let mut state = OrderState::Placed;
            let mut ends = 0;
            let mut resets = 0;
            for input in inputs {
                if let Some(transition) = advance(state, input) {
                    prop_assert_ne!(state, OrderState::Cancelled);
                    prop_assert_ne!(state, transition.state, "a change changes something");
                    state = transition.state;
                    ends += usize::from(transition.cancellation.is_some());
                    resets += usize::from(transition.publish.is_some());
                }
            }
            prop_assert_eq!(ends, usize::from(state == OrderState::Cancelled));
            prop_assert!(resets <= ends);
        }

        #[test]
        fn saying_it_twice_changes_nothing(inputs in inputs(), again in inputs()) {
            let run = |inputs: &[Input]| inputs.iter().fold(OrderState::Placed, |state, &input| {
                advance(state, input).map_or(state, |t| t.state)
            });
            for input in again.into_iter().chain([Input::ClientCancels]) {
                let mut once = inputs.clone();
                once.push(input);
                let mut twice = once.clone();
                twice.push(input);
                prop_assert_eq!(run(&once), run(&twice));
            }
        }
    }

    #[test]
    fn the_stores_refusal_is_not_published_again() {
        let refused = advance(OrderState::Placed, Input::StoreRefused(Reason::OutOfStock)).unwrap();
        assert_eq!(refused.publish, None);
        assert_eq!(refused.cancellation.unwrap().initiator, Initiator::Store);
    }

    #[test]
    fn a_reserved_order_has_met_its_deadline() {
        assert_eq!(advance(OrderState::Reserved, Input::DeadlinePassed), None);
    }
}
