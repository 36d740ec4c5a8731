//! A page of orders: which orders are on it, and how what the nodes found becomes one page. Nothing
//! here reads anything.

use chrono::{DateTime, Utc};
use ordersaga_contract::{ClientId, OrderId};
use ordersaga_saga::status::{Step, fold};

use crate::db::History;

/// Which orders are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filter {
    pub(crate) client: Option<ClientId>,
    pub(crate) step: Option<Step>,
    /// Placed at this time or later.
    pub(crate) from: Option<DateTime<Utc>>,
    /// Placed before this time.
    pub(crate) to: Option<DateTime<Utc>>,
}

impl Filter {
    /// Whether every order is asked for.
    pub(crate) fn is_none(&self) -> bool {
        let Self { client, step, from, to } = self;
        client.is_none() && step.is_none() && from.is_none() && to.is_none()
    }

    /// Whether an order is asked for. One whose placing was not heard of has no time.
    pub(crate) fn admits(&self, history: &History) -> bool {
        if self.client.is_some_and(|client| client != history.order.client_id) {
            return false;
        }
        let Some(status) = fold(history.heard.iter().copied()) else { return false };
        let is_in_time = match status.placed {
            Some(placed) => {
                self.from.is_none_or(|from| placed >= from) && self.to.is_none_or(|to| placed < to)
            }
            None => self.from.is_none() && self.to.is_none(),
        };
        is_in_time && self.step.is_none_or(|step| step == status.step)
    }
}

/// What one node found, newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part {
    pub(crate) found: Vec<History>,
    /// The oldest order that was looked at; `None` if there is none that was not.
    pub(crate) reach: Option<OrderId>,
    /// How many orders were looked at.
    pub(crate) scanned: usize,
}

/// Orders of all nodes, newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    pub(crate) orders: Vec<History>,
    /// All orders from this one on have been looked at; `None` if all have.
    pub(crate) next: Option<OrderId>,
    pub(crate) scanned: usize,
}

/// Makes one page of what the nodes found. A node that has not looked as far back as another might
/// still have orders that belong between the other's: the page ends where the first stopped.
pub(crate) fn merge(parts: Vec<Part>, limit: usize) -> Page {
    let reach = parts.iter().filter_map(|part| part.reach).max();
    let scanned = parts.iter().map(|part| part.scanned).sum();
    let found = parts.into_iter().flat_map(|part| part.found);
    let mut orders: Vec<_> =
        found.filter(|found| reach.is_none_or(|reach| found.order.order_id >= reach)).collect();
    orders.sort_by_key(|found| std::cmp::Reverse(found.order.order_id));
    let is_more = orders.len() > limit;
    orders.truncate(limit);
    let last = orders.last().map(|found| found.order.order_id).filter(|_| is_more);
    Page { orders, next: last.or(reach), scanned }
}

#[cfg(test)]
mod tests {
    use ordersaga_contract::Fact;
    use ordersaga_saga::status::Heard;
    use proptest::prelude::*;

    use super::*;
    use crate::examples::{at, order};

    fn history(number: i64, client: i64, facts: &[Fact]) -> History {
        let time = at(number);
        let heard = facts.iter().map(|fact| Heard { fact: *fact, time, reason: None }).collect();
        History { order: order(number, client), heard }
    }

    /// What a node that holds these orders, newest first, finds behind `after`, if it looks at
    /// `most` of them.
    fn look(orders: &[i64], after: Option<i64>, client: i64, most: usize) -> Part {
        let rest: Vec<_> =
            orders.iter().filter(|order| after.is_none_or(|after| **order < after)).collect();
        let seen = &rest[..most.min(rest.len())];
        let all = seen.iter().map(|order| history(**order, *order % 3 + 1, &[Fact::Placed]));
        let filter = Filter { client: Some(client.try_into().unwrap()), ..Filter::default() };
        Part {
            found: all.filter(|found| filter.admits(found)).collect(),
            reach: seen
                .last()
                .filter(|_| seen.len() < rest.len())
                .map(|o| (**o).try_into().unwrap()),
            scanned: seen.len(),
        }
    }

    proptest! {
        /// However the orders lie on the nodes and however far each looks, the pages one after the
        /// other are all orders asked for, each once, newest first.
        #[test]
        fn pages_one_after_the_other_are_the_whole_list(
            placed in prop::collection::btree_map(1_i64..200, 0_usize..3, 0..80),
            most in prop::collection::vec(1_usize..30, 3),
            limit in 1_usize..10,
            client in 1_i64..4,
        ) {
            let nodes: Vec<Vec<i64>> = (0..3)
                .map(|node| placed.iter().rev().filter(|p| *p.1 == node).map(|p| *p.0).collect())
                .collect();
            let wanted: Vec<i64> =
                placed.keys().rev().copied().filter(|order| order % 3 + 1 == client).collect();
            let (mut listed, mut after) = (Vec::new(), None);
            loop {
                let parts = nodes.iter().zip(&most);
                let parts = parts.map(|(orders, most)| look(orders, after, client, *most));
                let page = merge(parts.collect(), limit);
                prop_assert!(page.orders.len() <= limit);
                listed.extend(page.orders.iter().map(|found| found.order.order_id.get()));
                let Some(next) = page.next.map(OrderId::get) else { break };
                prop_assert!(after.is_none_or(|after| next < after), "it gets on");
                after = Some(next);
            }
            prop_assert_eq!(listed, wanted);
        }
    }

    #[test]
    fn a_filter_judges_by_the_fold_and_by_the_time_of_placing() {
        let time = |seconds| Some(at(seconds));
        let shipped = history(50, 7, &[Fact::Placed, Fact::Reserved]);
        let unplaced = history(50, 7, &[Fact::Reserved]);
        let filter = Filter::default();
        assert!(filter.is_none() && filter.admits(&shipped) && filter.admits(&unplaced));
        for (filter, admits) in [
            (Filter { step: Some(Step::Shipping), ..filter }, true),
            (Filter { step: Some(Step::UnderReservation), ..filter }, false),
            (Filter { from: time(50), ..filter }, true),
            (Filter { from: time(51), ..filter }, false),
            (Filter { to: time(51), ..filter }, true),
            (Filter { to: time(50), ..filter }, false),
        ] {
            assert_eq!(filter.admits(&shipped), admits, "{filter:?}");
        }
        assert!(!Filter { from: time(1), ..filter }.admits(&unplaced));
    }
}
