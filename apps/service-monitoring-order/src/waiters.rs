//! Requests that wait for news of an order.

use std::collections::HashMap;
use std::sync::Arc;

use ordersaga_contract::OrderId;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Who waits for which order in this process.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<HashMap<OrderId, Arc<Notify>>>);

/// A request that waits; dropping it ends the wait.
pub(crate) struct Waiting<'a> {
    waiters: &'a Waiters,
    order: OrderId,
    pub(crate) news: Arc<Notify>,
}

impl Waiters {
    /// Waits for news of `order` from now on.
    pub(crate) fn listen(&self, order: OrderId) -> Waiting<'_> {
        let news = self.0.lock().entry(order).or_default().clone();
        Waiting { waiters: self, order, news }
    }

    /// There is news of these orders.
    pub(crate) fn wake(&self, orders: impl Iterator<Item = OrderId>) {
        let waiting = self.0.lock();
        if waiting.is_empty() {
            return;
        }
        for order in orders {
            if let Some(news) = waiting.get(&order) {
                news.notify_waiters();
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.0.lock();
        // Two: the map's and this one.
        if Arc::strong_count(&self.news) <= 2 {
            waiting.remove(&self.order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_forgotten_and_nothing_is_left_behind() {
        let waiters = Waiters::default();
        let order = 7.try_into().unwrap();
        let (first, second) = (waiters.listen(order), waiters.listen(order));
        drop(first);
        assert!(waiters.0.lock().contains_key(&order));
        drop(second);
        assert!(waiters.0.lock().is_empty());
    }

    #[tokio::test]
    async fn news_reaches_whoever_listened_before_it_came() {
        let waiters = Waiters::default();
        let order = 7.try_into().unwrap();
        let waiting = waiters.listen(order);
        let news = waiting.news.notified();
        waiters.wake([8.try_into().unwrap(), order].into_iter());
        news.await;
    }
}
