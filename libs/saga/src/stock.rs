//! The store's decisions: reserve, refuse, release. Reserving is the saga's pivot transaction.

use std::collections::{BTreeMap, BTreeSet};

use ordersaga_contract::{
    Cancellation, Event, EventKind, Initiator, ItemId, Order, OrderId, Reason, SellerId,
};

/// An item's stock, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stock {
    /// Whose item it is.
    pub seller_id: SellerId,
    /// Units there are.
    pub quantity: i64,
    /// Units held for orders; never above `quantity`.
    pub reserved: i64,
}

/// What the store decided for an order. That there is a decision at all makes every later
/// placement of the order a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reservation {
    /// Stock is held.
    Reserved,
    /// Stock was held and is free again.
    Released,
    /// Nothing was held.
    Refused(Reason),
    /// A tombstone: the order was reset before it was seen, and its placement is to be ignored.
    Cancelled,
}

/// The part of the store that a batch of events touches: decisions are made on it in memory, and
/// what changed is then written in the batch's transaction.
///
/// It must hold the reservation of every order that the batch names, and the stock of every item
/// that the batch or one of those reservations names, as far as the store has them: what is absent
/// counts as not existing.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    items: BTreeMap<ItemId, Stock>,
    reservations: BTreeMap<OrderId, (Order, Reservation)>,
    changed_items: BTreeSet<ItemId>,
    changed_orders: BTreeSet<OrderId>,
}

impl Ledger {
    /// A ledger of what the store has now.
    pub fn new(
        items: impl IntoIterator<Item = (ItemId, Stock)>,
        reservations: impl IntoIterator<Item = (Order, Reservation)>,
    ) -> Self {
        Self {
            items: items.into_iter().collect(),
            reservations: reservations.into_iter().map(|(o, r)| (o.order_id, (o, r))).collect(),
            ..Self::default()
        }
    }

    /// Applies one event and returns what is to be published for it. Events that are not the
    /// store's to act on, its own answers among them, change nothing.
    pub fn apply(&mut self, event: &Event) -> Option<EventKind> {
        match event.kind {
            EventKind::OrderPlaced => self.place(event.order),
            EventKind::OrderReset(Cancellation { initiator, .. })
                if initiator != Initiator::Store =>
            {
                self.reset(event.order)
            }
            EventKind::OrderReset(_) | EventKind::ItemReserved | EventKind::ReservationReleased => {
                None
            }
        }
    }

    fn place(&mut self, order: Order) -> Option<EventKind> {
        if self.reservations.contains_key(&order.order_id) {
            return None;
        }
        match self.reserve(order) {
            Ok(()) => {
                self.decide(order, Reservation::Reserved);
                Some(EventKind::ItemReserved)
            }
            Err(reason) => {
                self.decide(order, Reservation::Refused(reason));
                let initiator = Initiator::Store;
                Some(EventKind::OrderReset(Cancellation { initiator, reason }))
            }
        }
    }

    fn reserve(&mut self, order: Order) -> Result<(), Reason> {
        let stock = self.items.get_mut(&order.item_id).ok_or(Reason::ItemNotFound)?;
        if stock.seller_id != order.seller_id {
            return Err(Reason::SellerMismatch);
        }
        let wanted = order.quantity.get();
        if stock.quantity - stock.reserved < wanted {
            return Err(Reason::OutOfStock);
        }
        stock.reserved += wanted;
        self.changed_items.insert(order.item_id);
        Ok(())
    }

    fn reset(&mut self, order: Order) -> Option<EventKind> {
        match self.reservations.get(&order.order_id).copied() {
            None => {
                self.decide(order, Reservation::Cancelled);
                None
            }
            // What was held is what the store wrote down, whatever the reset says of the order.
            Some((held, Reservation::Reserved)) => {
                self.release(held);
                self.decide(held, Reservation::Released);
                Some(EventKind::ReservationReleased)
            }
            Some(_) => None,
        }
    }

    fn release(&mut self, order: Order) {
        // A reserved order's item is there: items are never deleted.
        if let Some(stock) = self.items.get_mut(&order.item_id) {
            stock.reserved -= order.quantity.get();
            self.changed_items.insert(order.item_id);
        }
    }

    fn decide(&mut self, order: Order, reservation: Reservation) {
        self.reservations.insert(order.order_id, (order, reservation));
        self.changed_orders.insert(order.order_id);
    }

    /// The items whose stock changed, by id.
    pub fn changed_items(&self) -> impl Iterator<Item = (ItemId, Stock)> {
        self.changed_items.iter().map(|id| (*id, self.items[id]))
    }

    /// The orders whose reservation changed or is new, by id, with what it is now.
    pub fn changed_orders(&self) -> impl Iterator<Item = (Order, Reservation)> {
        self.changed_orders.iter().map(|id| self.reservations[id])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use proptest::prelude::*;

    const RESET: EventKind = EventKind::OrderReset(Cancellation {
        initiator: Initiator::Client,
        reason: Reason::CancelledByClient,
    });

    fn event(order_id: i64, item_id: i64, quantity: i64, kind: EventKind) -> Event {
        let order = Order {
            order_id: order_id.try_into().unwrap(),
            item_id: item_id.try_into().unwrap(),
            seller_id: 1.try_into().unwrap(),
            client_id: 1.try_into().unwrap(),
            quantity: quantity.try_into().unwrap(),
        };
        Event { order, kind, time: DateTime::<Utc>::UNIX_EPOCH }
    }

    fn shelf(quantities: &[i64]) -> Ledger {
        let stock = |quantity| Stock { seller_id: 1.try_into().unwrap(), quantity, reserved: 0 };
        let items = (1..).zip(quantities).map(|(id, q)| (id.try_into().unwrap(), stock(*q)));
        Ledger::new(items, [])
    }

    /// Placements and resets of few orders over few items: duplicates, overtaking and shortage are
    /// the rule. Order `o` always names item `o % 4`, of which the last does not exist.
    fn events() -> impl Strategy<Value = Vec<Event>> {
        let one = (1..12_i64, any::<bool>()).prop_map(|(order, placed)| {
            let kind = if placed { EventKind::OrderPlaced } else { RESET };
            event(order, order % 4 + 1, order % 3 + 1, kind)
        });
        prop::collection::vec(one, 0..60)
    }

    fn held(ledger: &Ledger) -> BTreeMap<ItemId, i64> {
        let mut held = BTreeMap::new();
        for (order, reservation) in ledger.reservations.values() {
            if *reservation == Reservation::Reserved {
                *held.entry(order.item_id).or_default() += order.quantity.get();
            }
        }
        held
    }

    proptest! {
        #[test]
        fn stock_is_never_oversold_and_always_equals_what_is_held(events in events()) {
            let mut ledger = shelf(&[3, 5, 0]);
            for event in &events {
                ledger.apply(event);
                for stock in ledger.items.values() {
                    prop_assert!((0..=stock.quantity).contains(&stock.reserved));
                }
            }
            let held = held(&ledger);
            for (id, stock) in &ledger.items {
                prop_assert_eq!(stock.reserved, held.get(id).copied().unwrap_or(0));
            }
        }

        #[test]
        fn cutting_the_batch_elsewhere_changes_nothing(events in events(), size in 1..9_usize) {
            let mut whole = shelf(&[3, 5, 0]);
            let said: Vec<_> = events.iter().map(|e| whole.apply(e)).collect();

            let mut stored = shelf(&[3, 5, 0]);
            let mut said_in_parts = Vec::new();
            for batch in events.chunks(size) {
                // A new ledger from what was stored, as the next transaction has it.
                let known = stored.reservations.values().copied();
                let mut part = Ledger::new(stored.items.clone(), known);
                said_in_parts.extend(batch.iter().map(|e| part.apply(e)));
                stored.items.extend(part.changed_items());
                stored.reservations
                    .extend(part.changed_orders().map(|(o, r)| (o.order_id, (o, r))));
            }
            prop_assert_eq!(said, said_in_parts);
            prop_assert_eq!(whole.items, stored.items);
            prop_assert_eq!(whole.reservations, stored.reservations);
        }

        #[test]
        fn a_repeated_event_changes_and_says_nothing(events in events()) {
            let mut ledger = shelf(&[3, 5, 0]);
            for event in &events {
                ledger.apply(event);
                let before = (ledger.items.clone(), ledger.reservations.clone());
                prop_assert_eq!(ledger.apply(event), None);
                prop_assert_eq!(before, (ledger.items.clone(), ledger.reservations.clone()));
            }
        }
    }

    #[test]
    fn first_come_first_served_down_to_the_last_unit() {
        let mut ledger = shelf(&[3]);
        let said: Vec<_> = [(1, 2), (2, 2), (3, 1)]
            .map(|(order, quantity)| {
                ledger.apply(&event(order, 1, quantity, EventKind::OrderPlaced)).unwrap()
            })
            .into();
        let refused = EventKind::OrderReset(Cancellation {
            initiator: Initiator::Store,
            reason: Reason::OutOfStock,
        });
        assert_eq!(said, [EventKind::ItemReserved, refused, EventKind::ItemReserved]);
    }

    #[test]
    fn a_reset_that_overtakes_its_order_leaves_a_tombstone() {
        let mut ledger = shelf(&[1]);
        assert_eq!(ledger.apply(&event(1, 1, 1, RESET)), None);
        assert_eq!(ledger.apply(&event(1, 1, 1, EventKind::OrderPlaced)), None);
        assert_eq!(ledger.changed_items().count(), 0);
        let decided: Vec<_> = ledger.changed_orders().map(|(_, r)| r).collect();
        assert_eq!(decided, [Reservation::Cancelled]);
    }

    #[test]
    fn a_reset_that_misstates_the_order_gives_back_what_was_held() {
        let mut ledger = shelf(&[5, 5]);
        ledger.apply(&event(1, 1, 2, EventKind::OrderPlaced));
        let said = ledger.apply(&event(1, 2, 4, RESET));
        assert_eq!(said, Some(EventKind::ReservationReleased));
        assert!(ledger.items.values().all(|stock| stock.reserved == 0));
    }

    #[test]
    fn the_stores_own_reset_is_not_a_cancel() {
        let mut ledger = shelf(&[1]);
        ledger.apply(&event(1, 1, 1, EventKind::OrderPlaced));
        let own = EventKind::OrderReset(Cancellation {
            initiator: Initiator::Store,
            reason: Reason::OutOfStock,
        });
        assert_eq!(ledger.apply(&event(1, 1, 1, own)), None);
        assert_eq!(ledger.reservations[&1.try_into().unwrap()].1, Reservation::Reserved);
    }

    #[test]
    fn another_sellers_item_and_an_unknown_item_are_refused() {
        let mut ledger = shelf(&[1]);
        let mut foreign = event(1, 1, 1, EventKind::OrderPlaced);
        foreign.order.seller_id = 2.try_into().unwrap();
        for (event, expected) in [
            (foreign, Reason::SellerMismatch),
            (event(2, 9, 1, EventKind::OrderPlaced), Reason::ItemNotFound),
        ] {
            let reason = ledger.apply(&event).and_then(EventKind::cancellation).unwrap().reason;
            assert_eq!(reason, expected);
        }
    }
}
