//! How the screen looks.

use ordersaga_terminal::line;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, TableState, Wrap};
use serde_json::Value;

use ordersaga_devstack::Service;

use super::figures::{Figures, Saga};
use super::screen::{Over, Screen, Watched};

/// Lines of the list of stuck orders, its title included.
const STUCK: u16 = 6;

const KEYS: [&str; 7] = [
    "↑ ↓    choose an order",
    "enter  open it, with its facts; again or esc: close",
    "/      show only what contains a text, or field=value, as client_id=7",
    "esc    show all again",
    "p      pause: nothing is asked, and the screen stays as it is",
    "?      these keys",
    "q      end (or Ctrl-C)",
];

/// Draws all of it.
pub(super) fn screen(frame: &mut Frame<'_>, screen: &Screen) {
    let stuck = u16::try_from(screen.shown_stuck().count()).unwrap_or(u16::MAX);
    let stuck = if stuck == 0 { 1 } else { (stuck + 1).min(STUCK) };
    let heights = [
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(5),
        Constraint::Length(1),
        Constraint::Length(stuck),
        Constraint::Min(3),
        Constraint::Length(1),
    ];
    let [title, rates, services, shards, stuck, orders, foot] =
        Layout::vertical(heights).areas(frame.area());
    frame.render_widget(Paragraph::new(head(screen)).bold(), title);
    frame.render_widget(Paragraph::new(saga(screen)), rates);
    draw_services(frame, services, screen);
    frame.render_widget(Paragraph::new(partitions(screen)), shards);
    draw_stuck(frame, stuck, screen);
    draw_orders(frame, orders, screen);
    frame.render_widget(Paragraph::new(below(screen)).dim(), foot);
    draw_over(frame, screen);
}

fn head(screen: &Screen) -> String {
    let paused = if screen.is_paused() { "   PAUSED" } else { "" };
    let interval = screen.interval.as_secs_f64();
    format!("ordersaga top   {}   every {interval} s{paused}", line(&screen.url))
}

fn saga(screen: &Screen) -> String {
    let create = screen.services.get(&Service::CreateOrder);
    let Saga { placed, decided, median, slowest } =
        create.map(|watched| watched.readings.saga()).unwrap_or_default();
    format!(
        "placed {}/s   decided {}/s   to the decision: p50 {}   p99 {}",
        number(placed),
        number(decided),
        milliseconds(median),
        milliseconds(slowest)
    )
}

/// What is not known is a dash.
fn shown(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), show)
}

fn number(value: Option<f64>) -> String {
    shown(value, |value| {
        if value < 10.0 && value.fract() > 0.0 {
            format!("{value:.1}")
        } else {
            format!("{value:.0}")
        }
    })
}

fn milliseconds(seconds: Option<f64>) -> String {
    shown(seconds, |seconds| format!("{:.0} ms", seconds * 1e3))
}

fn seconds(seconds: Option<f64>) -> String {
    shown(seconds, |seconds| format!("{seconds:.1} s"))
}

fn draw_services(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let head = ["service", "CPU", "memory", "requests", "lag", "lag in time", "outbox", "oldest"];
    let widths = [26, 7, 10, 9, 10, 12, 10, 10].map(Constraint::Length);
    let rows = screen.services.iter().map(|(service, watched)| service_row(*service, watched));
    let table = Table::new(rows, widths).header(Row::new(head).dim());
    frame.render_widget(table, area);
}

fn service_row(service: Service, watched: &Watched) -> Row<'static> {
    if watched.away.is_some() {
        return Row::new([service.to_string(), "away".to_owned()]).red();
    }
    let Figures { cpu, memory, in_flight, lag, lag_seconds, outbox, oldest } =
        watched.readings.figures();
    Row::new([
        service.to_string(),
        shown(cpu, |cores| format!("{:.0} %", cores * 100.0)),
        shown(memory, |bytes| format!("{:.0} MiB", bytes / 1024.0 / 1024.0)),
        number(in_flight),
        number(lag),
        seconds(lag_seconds),
        number(outbox),
        seconds(oldest),
    ])
}

/// Shards, and the partition with the most records that wait. Why a service is away takes its place.
fn partitions(screen: &Screen) -> String {
    let away = screen.services.values().find_map(|watched| watched.away.as_deref());
    if let Some(away) = away {
        return line(away);
    }
    let newest = |service: Service| screen.services.get(&service)?.readings.newest();
    let monitoring = newest(Service::Monitoring);
    let dependencies = monitoring.into_iter().flat_map(|page| page.series("dependency_up"));
    let mut shards: Vec<_> = dependencies
        .filter_map(|(labels, up)| Some((labels.get("dependency")?, up)))
        .filter(|(name, _)| *name != "postgres" && !name.starts_with("kafka-"))
        .map(|(name, up)| format!("{} {}", line(name), if up > 0.0 { "up" } else { "away" }))
        .collect();
    shards.sort();
    let lags = Service::ALL.into_iter().filter_map(|service| Some((service, newest(service)?)));
    let lags = lags.flat_map(|(service, page)| {
        page.series("consumer_lag_records").map(move |(labels, lag)| (service, labels, lag))
    });
    let worst =
        lags.filter(|(_, _, lag)| *lag > 0.0).max_by(|one, other| one.2.total_cmp(&other.2));
    let worst = worst.map_or_else(String::new, |(service, labels, lag)| {
        let label = |name: &str| labels.get(name).map_or_else(String::new, |text| line(text));
        format!(
            "   most behind: {service} on {}/{}, {lag} records",
            label("topic"),
            label("partition")
        )
    });
    format!("shards: {}{worst}", if shards.is_empty() { "–".to_owned() } else { shards.join(", ") })
}

fn draw_stuck(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let count = screen.shown_stuck().count();
    let mut lines = vec![match &screen.stuck.away {
        Some(_) => Line::from("stuck: not known").dim(),
        None if count == 0 => Line::from("stuck: none"),
        None => Line::from(format!("stuck: {count}")).red(),
    }];
    lines.extend(screen.shown_stuck().map(|item| Line::from(stuck_line(item))));
    frame.render_widget(Paragraph::new(lines), area);
}

fn stuck_line(item: &Value) -> String {
    let awaited = match item["waits_for"].as_str().unwrap_or_default() {
        "ANSWER" => "the store's answer".to_owned(),
        "RELEASE" => "the store to give its stock back".to_owned(),
        "PLACING" => "the news that it was placed".to_owned(),
        other => line(other),
    };
    let late = if item["is_late"] == true { "; only monitoring is late" } else { "" };
    let order = &item["order"]["order_id"];
    format!("  order {order} waits for {awaited} since {}{late}", time(&item["since"]))
}

/// The time of day, by the second.
fn time(value: &Value) -> String {
    let text = line(value.as_str().unwrap_or("–"));
    let of_day = text.split_once('T').map(|(_, time)| time.chars().take(8).collect());
    of_day.unwrap_or(text)
}

fn draw_orders(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let head = ["order", "step", "client", "item", "quantity", "shard", "changed", "reason"];
    let widths = [20, 18, 12, 12, 9, 10, 10, 22].map(Constraint::Length);
    let rows = screen.shown_orders().map(order_row);
    let title = match (&screen.orders.away, screen.filter.as_str()) {
        (Some(away), _) => format!("newest orders, as they were: {}", line(away)),
        (None, "") => "newest orders".to_owned(),
        (None, filter) => format!("newest orders with {}", line(filter)),
    };
    let table = Table::new(rows, widths)
        .header(Row::new(head).dim())
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::new().title(title));
    let mut state = TableState::new().with_selected(screen.chosen());
    frame.render_stateful_widget(table, area, &mut state);
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => line(text),
        other => line(&other.to_string()),
    }
}

fn order_row(order: &Value) -> Row<'static> {
    let names = ["order_id", "step", "client_id", "item_id", "quantity", "shard"];
    let cells = names.map(|name| text(&order[name]));
    Row::new(cells.into_iter().chain([time(&order["update_date"]), text(&order["reason"])]))
}

fn below(screen: &Screen) -> String {
    match &screen.over {
        Over::Filter => format!("/{}▏  enter: keep, esc: show all", line(&screen.filter)),
        _ => "↑↓ choose   enter open   / filter   p pause   ? keys   q end".to_owned(),
    }
}

fn draw_over(frame: &mut Frame<'_>, screen: &Screen) {
    let (title, lines) = match &screen.over {
        Over::Nothing | Over::Filter => return,
        Over::Keys => ("keys".to_owned(), KEYS.map(str::to_owned).into()),
        Over::Order(id) => (
            format!("order {id}"),
            screen.order(*id).map_or_else(
                || {
                    vec![
                        "It is no longer among the newest.".to_owned(),
                        format!("ordersaga order {id}"),
                    ]
                },
                order_lines,
            ),
        ),
    };
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(2);
    let area = frame.area().centered(Constraint::Max(76), Constraint::Max(height));
    let lines: Vec<_> = lines.into_iter().map(Line::from).collect();
    let block = Block::bordered().title(title);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

/// An order's values, and its facts with their times.
fn order_lines(order: &Value) -> Vec<String> {
    let fields = order.as_object().into_iter().flatten();
    let values = fields.filter(|(_, value)| !value.is_array());
    let values = values.map(|(name, value)| format!("{:14} {}", line(name), text(value)));
    let facts = order["facts"].as_array().into_iter().flatten().map(|fact| {
        let more = ["reason", "initiator"].map(|name| text(&fact[name]));
        let more = more.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
        format!("  {}  {:12} {more}", text(&fact["time"]), text(&fact["fact"]))
            .trim_end()
            .to_owned()
    });
    values.chain(["facts".to_owned()]).chain(facts).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use serde_json::json;

    use super::super::ask::News;
    use super::*;
    use crate::metrics::Metrics;

    fn order(id: i64, reason: &str) -> Value {
        json!({"order_id": id, "step": "CANCELLED", "client_id": 7, "item_id": 1000, "quantity": 2,
            "shard": "shard2", "update_date": "2026-11-28T04:05:06.000001Z", "reason": reason,
            "facts": [{"fact": "PLACED", "time": "2026-11-28T04:05:05Z"},
                {"fact": "CANCELLED", "time": "2026-11-28T04:05:06Z", "initiator": "store"}]})
    }

    fn example() -> Screen {
        let mut screen = Screen::new("http://localhost:8001", Duration::from_secs(1));
        let page = "process_cpu_seconds_total 1\nprocess_resident_memory_bytes 44040192\n\
            consumer_lag_records{topic=\"reset\",partition=\"8\"} 12\n\
            dependency_up{dependency=\"shard2\"} 0\ndependency_up{dependency=\"postgres\"} 1\n";
        let at = Instant::now();
        for service in [Service::CreateOrder, Service::Monitoring] {
            screen.hear(News::Metrics(service, Ok((at, Metrics::parse(page).unwrap()))));
        }
        screen.hear(News::Metrics(Service::Store, Err("no answer at http://x".to_owned())));
        screen.hear(News::Orders(Ok(
            json!({"items": [order(17, "OUT_OF_STOCK"), order(16, "\u{1b}[2J")]}),
        )));
        let stuck = json!({"order": order(5, ""), "waits_for": "ANSWER",
            "since": "2026-11-28T04:05:06Z", "is_late": false});
        screen.hear(News::Stuck(Ok(json!({"items": [stuck]}))));
        screen
    }

    fn drawn(screen: &Screen) -> String {
        super::super::text(screen, (120, 30)).unwrap()
    }

    #[test]
    fn a_service_that_is_away_is_shown_as_away_and_the_rest_goes_on() {
        let text = drawn(&example());
        let row = |name: &str| text.lines().find(|row| row.starts_with(name)).unwrap();
        assert!(row("service-store").contains("away"), "{text}");
        assert!(row("service-monitoring-order").contains("42 MiB"), "{text}");
        assert!(text.contains("no answer at http://x"), "{text}");
        assert!(text.contains("order 5 waits for the store's answer since 04:05:06"), "{text}");
        assert!(row("17").contains("OUT_OF_STOCK"), "{text}");
    }

    #[test]
    fn shards_and_the_partition_most_behind_are_named() {
        let mut screen = example();
        let page = Metrics::parse("process_open_fds 1\n").unwrap();
        screen.hear(News::Metrics(Service::Store, Ok((Instant::now(), page))));
        let text = drawn(&screen);
        assert!(text.contains("shards: shard2 away   most behind: "), "{text}");
        assert!(text.contains(" on reset/8, 12 records"), "{text}");
    }

    #[test]
    fn foreign_text_moves_nothing() {
        let text = drawn(&example());
        assert!(!text.contains('\u{1b}') && text.contains("\\u{1b}[2J"), "{text}");
    }

    #[test]
    fn an_order_opens_with_its_facts_and_keys_are_explained() {
        let mut screen = example();
        let mut press = |code| screen.press(KeyEvent::new(code, KeyModifiers::NONE));
        press(KeyCode::Down);
        press(KeyCode::Enter);
        let text = drawn(&screen);
        assert!(
            text.contains("order 17") && text.contains("2026-11-28T04:05:06Z  CANCELLED    store"),
            "{text}"
        );
        screen.press(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
        screen.press(KeyEvent::new(KeyCode::Char('?'), KeyModifiers::NONE));
        assert!(KEYS.iter().all(|key| drawn(&screen).contains(key)), "{}", drawn(&screen));
    }

    #[test]
    fn a_small_terminal_is_no_error() {
        for size in [(1, 1), (10, 3), (40, 12)] {
            super::super::text(&example(), size).unwrap();
        }
    }
}
