//! Requests that wait for news of an order. A request reads the order once; what is heard of it
//! afterwards reaches the request from memory, as soon as it is committed.

use std::collections::HashMap;
use std::sync::Arc;

use ordersaga_contract::{Event, OrderId};
use ordersaga_saga::status::{Step, fold};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::db::History;

/// Who waits for which order in this process.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<HashMap<OrderId, Vec<Arc<Waiter>>>>);

struct Waiter {
    /// The step it waits for.
    wanted: Step,
    /// Whether it wants to hear that there is such an order at all.
    wants_first: bool,
    known: Mutex<Option<History>>,
    news: Notify,
}

/// A request that waits; dropping it ends the wait.
pub(crate) struct Waiting<'a> {
    waiters: &'a Waiters,
    order: OrderId,
    waiter: Arc<Waiter>,
}

impl Waiters {
    /// Waits for `order` to be at a step from now on.
    pub(crate) fn listen(&self, order: OrderId, wanted: Step, wants_first: bool) -> Waiting<'_> {
        let waiter = Waiter { wanted, wants_first, known: Mutex::default(), news: Notify::new() };
        let waiter = Arc::new(waiter);
        self.0.lock().entry(order).or_default().push(waiter.clone());
        Waiting { waiters: self, order, waiter }
    }

    /// Whether somebody waits for just this.
    pub(crate) fn wait_for(&self, event: &Event) -> bool {
        let waiters = self.0.lock();
        let waiting = waiters.get(&event.order.order_id);
        waiting.is_some_and(|waiting| waiting.iter().any(|waiter| waiter.waits_for(event)))
    }

    /// These events are committed.
    pub(crate) fn tell<'a>(&self, events: impl Iterator<Item = &'a Event>) {
        let waiters = self.0.lock();
        if waiters.is_empty() {
            return;
        }
        for event in events {
            for waiter in waiters.get(&event.order.order_id).into_iter().flatten() {
                let is_news = waiter.waits_for(event);
                waiter.add(History::of(event));
                if is_news {
                    waiter.news.notify_one();
                }
            }
        }
    }
}

impl Waiter {
    fn waits_for(&self, event: &Event) -> bool {
        let known = self.known.lock();
        if known.is_none() && self.wants_first {
            return true;
        }
        let heard = known.iter().flat_map(|history| &history.heard).copied();
        let folded = fold(heard.chain(History::of(event).heard));
        folded.is_some_and(|folded| folded.step >= self.wanted)
    }

    fn add(&self, history: History) {
        let mut known = self.known.lock();
        match &mut *known {
            Some(known) => known.add(history),
            None => *known = Some(history),
        }
    }
}

impl Waiting<'_> {
    /// Adds what was read of the order.
    pub(crate) fn add(&self, read: Option<History>) {
        if let Some(history) = read {
            self.waiter.add(history);
        }
    }

    /// What was read of the order, and heard since.
    pub(crate) fn known(&self) -> Option<History> {
        self.waiter.known.lock().clone()
    }

    /// Waits until there is news.
    pub(crate) async fn news(&self) {
        self.waiter.news.notified().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiters = self.waiters.0.lock();
        if let Some(waiting) = waiters.get_mut(&self.order) {
            waiting.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            if waiting.is_empty() {
                waiters.remove(&self.order);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use ordersaga_contract::EventKind;

    use super::*;
    use crate::examples::event;

    fn is_told(waiting: &Waiting<'_>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(waiting.news()).poll(&mut context).is_ready()
    }

    #[test]
    fn nobody_is_forgotten_and_nothing_is_left_behind() {
        let waiters = Waiters::default();
        let order = 7.try_into().unwrap();
        let first = waiters.listen(order, Step::Shipping, false);
        let second = waiters.listen(order, Step::Shipping, false);
        drop(first);
        assert!(waiters.0.lock().contains_key(&order));
        drop(second);
        assert!(waiters.0.lock().is_empty());
    }

    #[test]
    fn a_request_is_told_of_the_step_it_waits_for_with_all_before_it() {
        let waiters = Waiters::default();
        let order = 7.try_into().unwrap();
        let waiting = waiters.listen(order, Step::Shipping, false);
        let curious = waiters.listen(order, Step::Shipping, true);
        let (placed, reserved) =
            (event(7, EventKind::OrderPlaced, 0), event(7, EventKind::ItemReserved, 0));
        waiters.tell([&event(8, EventKind::ItemReserved, 0)].into_iter());
        assert!(!waiters.wait_for(&event(8, EventKind::ItemReserved, 0)));
        assert!(!is_told(&waiting) && !is_told(&curious));
        waiters.tell([&placed].into_iter());
        assert!(!is_told(&waiting) && is_told(&curious));
        assert!(!waiters.wait_for(&placed) && waiters.wait_for(&reserved));
        waiters.tell([&reserved, &placed].into_iter());
        assert!(is_told(&waiting));
        let status = fold(waiting.known().unwrap().heard).unwrap();
        assert_eq!((status.step, status.facts.len()), (Step::Shipping, 2), "each fact once");
    }
}
