//! What is shown, and what keys and news make of it.

use std::collections::BTreeMap;
use std::time::Duration;

use ordersaga_devstack::Service;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::Value;

use super::ask::News;
use super::figures::Readings;

/// One service on the screen.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) readings: Readings,
    /// Why it is away, if it is.
    pub(super) away: Option<String>,
}

/// A list of monitoring's.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) items: Vec<Value>,
    /// Why it could not be read the last time.
    pub(super) away: Option<String>,
    is_heard: bool,
}

/// What lies over the screen.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Over {
    Nothing,
    /// The filter is being written.
    Filter,
    /// The keys are shown.
    Keys,
    /// An order is open.
    Order(i64),
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) url: String,
    pub(super) interval: Duration,
    pub(super) services: BTreeMap<Service, Watched>,
    pub(super) orders: Listed,
    pub(super) stuck: Listed,
    pub(super) filter: String,
    pub(super) over: Over,
    /// The order that arrows have chosen; it stays chosen while others come.
    chosen: Option<i64>,
    is_paused: bool,
    is_over: bool,
}

impl Listed {
    fn hear(&mut self, list: Result<Value, String>) {
        self.is_heard = true;
        match list {
            Ok(mut list) => {
                self.away = None;
                let items = list["items"].take();
                self.items = if let Value::Array(items) = items { items } else { Vec::new() };
            }
            Err(error) => self.away = Some(error),
        }
    }
}

/// The number of an order as lists have it.
pub(super) fn id(order: &Value) -> Option<i64> {
    order["order_id"].as_i64()
}

impl Screen {
    pub(super) fn new(url: &str, interval: Duration) -> Self {
        Self {
            url: url.to_owned(),
            interval,
            services: Service::ALL.map(|service| (service, Watched::default())).into(),
            orders: Listed::default(),
            stuck: Listed::default(),
            filter: String::new(),
            over: Over::Nothing,
            chosen: None,
            is_paused: false,
            is_over: false,
        }
    }

    /// Takes an answer. While paused the screen stays as it is.
    pub(super) fn hear(&mut self, news: News) {
        if self.is_paused {
            return;
        }
        match news {
            News::Metrics(service, told) => {
                let watched = self.services.entry(service).or_default();
                match told {
                    Ok((at, metrics)) => {
                        watched.away = None;
                        watched.readings.hear(at, metrics);
                    }
                    // Rates over its absence would mislead.
                    Err(error) => {
                        *watched = Watched { away: Some(error), ..Watched::default() };
                    }
                }
            }
            News::Orders(list) => self.orders.hear(list),
            News::Stuck(list) => self.stuck.hear(list),
        }
    }

    /// Every service has told its rates, or is away, and both lists were asked for.
    pub(super) fn is_complete(&self) -> bool {
        let told = |watched: &Watched| watched.away.is_some() || watched.readings.are_two();
        self.services.values().all(told) && self.orders.is_heard && self.stuck.is_heard
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyEvent) {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (&self.over, key.code) {
            (_, KeyCode::Char('c')) if is_control => self.is_over = true,
            (Over::Filter, code) => self.write_filter(code),
            (_, KeyCode::Char('q')) => self.is_over = true,
            (Over::Order(_) | Over::Keys, KeyCode::Esc | KeyCode::Enter | KeyCode::Char('?')) => {
                self.over = Over::Nothing;
            }
            (_, KeyCode::Char('?')) => self.over = Over::Keys,
            (_, KeyCode::Char('p')) => self.is_paused = !self.is_paused,
            (_, KeyCode::Char('/')) => self.over = Over::Filter,
            (Over::Nothing, KeyCode::Esc) => self.filter.clear(),
            (Over::Nothing, KeyCode::Enter) => {
                self.over = self.chosen.map_or(Over::Nothing, Over::Order);
            }
            (Over::Nothing | Over::Order(_), KeyCode::Down) => self.choose(1),
            (Over::Nothing | Over::Order(_), KeyCode::Up) => self.choose(-1),
            _ => {}
        }
    }

    fn write_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.over = Over::Nothing,
            KeyCode::Esc => {
                self.filter.clear();
                self.over = Over::Nothing;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    /// Moves through the orders that the filter shows. An order that is open changes with it.
    fn choose(&mut self, by: isize) {
        let shown: Vec<_> = self.shown_orders().filter_map(id).collect();
        let at = self.chosen.and_then(|chosen| shown.iter().position(|id| *id == chosen));
        let to = at.map_or(0, |at| at.saturating_add_signed(by).min(shown.len().saturating_sub(1)));
        self.chosen = shown.get(to).copied();
        if let (Over::Order(open), Some(chosen)) = (&mut self.over, self.chosen) {
            *open = chosen;
        }
    }

    /// The orders in which the filter's text stands.
    pub(super) fn shown_orders(&self) -> impl Iterator<Item = &Value> {
        self.orders.items.iter().filter(|order| is_shown(order, &self.filter))
    }

    /// Those that are stuck, of which it stands.
    pub(super) fn shown_stuck(&self) -> impl Iterator<Item = &Value> {
        self.stuck.items.iter().filter(|item| is_shown(&item["order"], &self.filter))
    }

    /// Where the chosen order stands among those shown.
    pub(super) fn chosen(&self) -> Option<usize> {
        self.shown_orders().position(|order| self.chosen.is_some() && id(order) == self.chosen)
    }

    /// An order of the list.
    pub(super) fn order(&self, number: i64) -> Option<&Value> {
        let stuck = self.stuck.items.iter().map(|item| &item["order"]);
        self.orders.items.iter().chain(stuck).find(|order| id(order) == Some(number))
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }
}

/// Whether a value of the order contains the text, in capitals or not: `17`, `client_id=7`.
fn is_shown(order: &Value, filter: &str) -> bool {
    let filter = filter.trim().to_lowercase();
    let fields = order.as_object().into_iter().flatten();
    filter.is_empty()
        || fields.filter(|(_, value)| !value.is_array()).any(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match filter.split_once('=') {
                Some((field, wanted)) => name.starts_with(field) && value.to_lowercase() == wanted,
                None => value.to_lowercase().contains(&filter),
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn screen() -> Screen {
        let mut screen = Screen::new("http://x", Duration::from_secs(1));
        let order =
            |id: i64, step: &str| json!({"order_id": id, "step": step, "client_id": id + 100});
        let list =
            json!({"items": [order(3, "SHIPPING"), order(2, "CANCELLED"), order(1, "SHIPPING")]});
        screen.hear(News::Orders(Ok(list)));
        screen
    }

    fn type_in(screen: &mut Screen, codes: impl IntoIterator<Item = KeyCode>) {
        for code in codes {
            screen.press(KeyEvent::new(code, KeyModifiers::NONE));
        }
    }

    fn shown(screen: &Screen) -> Vec<i64> {
        screen.shown_orders().filter_map(id).collect()
    }

    #[test]
    fn a_filter_is_a_part_of_a_value_or_a_field_with_its_value() {
        let mut screen = screen();
        type_in(
            &mut screen,
            [KeyCode::Char('/')].into_iter().chain("ship".chars().map(KeyCode::Char)),
        );
        assert_eq!(shown(&screen), [3, 1]);
        type_in(&mut screen, [KeyCode::Esc]);
        assert_eq!(shown(&screen), [3, 2, 1]);
        screen.filter = "client_id=102".to_owned();
        assert_eq!(shown(&screen), [2]);
        // Within the filter letters are letters.
        type_in(&mut screen, [KeyCode::Char('/'), KeyCode::Char('q')]);
        assert!(!screen.is_over());
    }

    #[test]
    fn the_chosen_order_stays_chosen_while_others_come() {
        let mut screen = screen();
        type_in(&mut screen, [KeyCode::Down, KeyCode::Down]);
        assert_eq!(screen.chosen(), Some(1));
        screen.hear(News::Orders(Ok(
            json!({"items": [{"order_id": 4}, {"order_id": 3}, {"order_id": 2}]}),
        )));
        assert_eq!(screen.chosen(), Some(2));
        type_in(&mut screen, [KeyCode::Enter]);
        assert_eq!(screen.over, Over::Order(2));
        type_in(&mut screen, [KeyCode::Up]);
        assert_eq!(screen.over, Over::Order(3));
        type_in(&mut screen, [KeyCode::Esc]);
        assert_eq!(screen.over, Over::Nothing);
    }

    #[test]
    fn a_paused_screen_stays_as_it_is() {
        let mut screen = screen();
        type_in(&mut screen, [KeyCode::Char('p')]);
        screen.hear(News::Orders(Ok(json!({"items": []}))));
        assert_eq!(shown(&screen), [3, 2, 1]);
        type_in(&mut screen, [KeyCode::Char('p')]);
        screen.hear(News::Orders(Ok(json!({"items": []}))));
        assert_eq!(shown(&screen), Vec::<i64>::new());
    }

    #[test]
    fn a_list_that_cannot_be_read_keeps_what_it_had_and_says_why() {
        let mut screen = screen();
        screen.hear(News::Orders(Err("away".to_owned())));
        assert_eq!(shown(&screen), [3, 2, 1]);
        assert_eq!(screen.orders.away.as_deref(), Some("away"));
    }

    #[test]
    fn q_and_ctrl_c_end_it() {
        let mut screen = screen();
        type_in(&mut screen, [KeyCode::Char('q')]);
        assert!(screen.is_over());
        let mut screen = self::screen();
        type_in(&mut screen, [KeyCode::Char('/')]);
        screen.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(screen.is_over());
    }
}
