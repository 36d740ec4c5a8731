//! Clients that wait for the end of their order, by long poll of its status.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Clients, Doing};
use crate::answer::{Answer, word};
use crate::connection::Trouble;
use crate::plan::Plan;
use crate::report::Waits;
use crate::said::{RESERVED, Said, reset_by};

/// The longest that a status request asks to wait. Monitoring allows 30 s; a request's
/// [`PATIENCE`](crate::PATIENCE) must be longer.
const LONGEST: Duration = Duration::from_secs(5);

/// An order whose end a client waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    /// The order's place.
    pub(super) place: usize,
    /// When it is given up: microseconds.
    pub(super) until: u64,
}

/// What an answer tells whoever waits for an order's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// The order has ended: what was said of it.
    Ended(Said),
    /// It has not ended yet.
    Open,
    /// Monitoring has not heard of it yet.
    Unheard,
    /// Monitoring does not say.
    Refused,
    /// What came is no status.
    Malformed,
}

/// What an answer with this status and body tells. An order ends with its reservation or its
/// cancellation, as on the topics.
pub(crate) fn told(status: u16, body: &[u8]) -> Told {
    match (status, word(body, "step")) {
        (200, Some(b"SHIPPING")) => Told::Ended(RESERVED),
        (200, Some(b"CANCELLED")) => {
            Told::Ended(reset_by(word(body, "initiator").unwrap_or_default()))
        }
        (200, Some(b"UNDER_RESERVATION")) => Told::Open,
        (200, _) => Told::Malformed,
        (404, _) => Told::Unheard,
        _ => Told::Refused,
    }
}

/// The path of a request that waits for an order's end, but for the order's id.
pub(crate) fn path(plan: &Plan) -> String {
    let patience = Duration::from_secs_f64(plan.settle_seconds);
    let millis = patience.min(LONGEST).as_millis();
    format!("/api/v1/status?wait_ms={millis}&order_id=")
}

impl Waits {
    /// Counts an answer that says how the order stands; others are refusals and errors.
    fn count(&mut self, told: Told) {
        match told {
            Told::Ended(_) => {}
            Told::Open => self.open += 1,
            Told::Unheard => self.unheard += 1,
            Told::Refused | Told::Malformed => return,
        }
        self.answers += 1;
    }
}

impl Clients<'_> {
    /// Whether any client has an order whose end it waits for.
    pub(super) fn is_awaiting(&self) -> bool {
        self.all.iter().any(|client| client.awaited.is_some())
    }

    /// Asks once more for the order that the client waits for. False if it waits for none, or has
    /// waited long enough.
    pub(super) fn ask_for_end(&mut self, number: usize, now: u64) -> bool {
        let Some(Awaited { place, until }) = self.all[number].awaited else { return false };
        if now > until {
            self.all[number].awaited = None;
            self.sent.waits.given_up += self.counted(now);
            return false;
        }
        let order = self.orders.order(place);
        self.requests.wait[self.all[number].read_at].write(order, &mut self.out);
        self.begin(number, Doing::Await(place), now, now);
        true
    }

    /// Monitoring has answered a client that waits for the order of this place.
    pub(super) fn on_status(
        &mut self,
        number: usize,
        place: usize,
        answer: &Answer,
        bytes: &[u8],
        now: u64,
    ) {
        let told = told(answer.status, &bytes[answer.body.clone()]);
        if self.sent.tally.measures(now) {
            self.sent.waits.count(told);
        }
        match told {
            Told::Ended(said) => self.ended(number, place, said, now),
            // Monitoring has waited as long as it was asked to, or too many wait: asked at once
            // again it would only have more to do.
            Told::Open | Told::Unheard => self.back_off(number, u64::MAX, now),
            Told::Refused => self.refused(number, answer, now),
            Told::Malformed => self.on_trouble(number, Trouble::Malformed, now),
        }
    }

    fn ended(&mut self, number: usize, place: usize, said: Said, now: u64) {
        self.sent.said.add(place, said);
        if let Some(begun) = self.orders.ended(place, now) {
            self.sent.tally.ended(begun, now);
            self.live.ended_here.fetch_add(1, Ordering::Release);
        }
        self.all[number].awaited = None;
        self.succeeded(number);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::live::Live;
    use crate::orders::Orders;
    use crate::report::tests::plan;
    use crate::said::{BY_CLIENT, BY_DEADLINE, BY_STORE};
    use crate::sent::Sent;

    #[test]
    fn an_order_has_ended_when_it_ships_or_is_cancelled() {
        let shipping = b"{\"order_id\":1,\"step\":\"SHIPPING\",\"is_reserved\":true}";
        assert_eq!(told(200, shipping), Told::Ended(RESERVED));
        assert_eq!(told(200, b"{\"step\": \"UNDER_RESERVATION\"}"), Told::Open);
        for (initiator, said) in
            [("client", BY_CLIENT), ("store", BY_STORE), ("deadline", BY_DEADLINE)]
        {
            let body = format!("{{\"step\":\"CANCELLED\",\"initiator\":\"{initiator}\"}}");
            assert_eq!(told(200, body.as_bytes()), Told::Ended(said));
        }
        assert_eq!(told(404, b"{\"status\":404}"), Told::Unheard);
        assert_eq!(told(503, shipping), Told::Refused);
        assert_eq!(told(429, b""), Told::Refused);
        for no_status in [&b""[..], b"{}", b"{\"step\":7}", b"{\"step\":\"LOST\"}"] {
            assert_eq!(told(200, no_status), Told::Malformed);
        }
    }

    #[test]
    fn a_request_waits_no_longer_than_its_client() {
        assert_eq!(path(&plan("--wait")), "/api/v1/status?wait_ms=5000&order_id=");
        assert_eq!(path(&plan("--wait --settle 0.2")), "/api/v1/status?wait_ms=200&order_id=");
    }

    fn any_told() -> impl Strategy<Value = Told> {
        prop::sample::select(vec![
            Told::Ended(RESERVED),
            Told::Open,
            Told::Unheard,
            Told::Refused,
            Told::Malformed,
        ])
    }

    proptest! {
        #[test]
        fn every_answer_is_counted_once_whatever_their_order(
            (all, shuffled) in prop::collection::vec(any_told(), 0..32)
                .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        ) {
            let tally = |all: &[Told]| {
                let mut waits = Waits::default();
                for told in all {
                    waits.count(*told);
                }
                waits
            };
            let waits = tally(&all);
            prop_assert_eq!(waits, tally(&shuffled));
            let silent = all.iter().filter(|told| matches!(told, Told::Refused | Told::Malformed));
            prop_assert_eq!(waits.answers + silent.count() as u64, all.len() as u64);
            let ended = all.iter().filter(|told| matches!(told, Told::Ended(_)));
            prop_assert_eq!(waits.answers - waits.open - waits.unheard, ended.count() as u64);
        }

        #[test]
        fn only_a_status_ends_an_order(
            status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let has_ended = matches!(told(status, &body), Told::Ended(_));
            prop_assert!(!has_ended || status == 200);
        }
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    /// A service that gives these answers in turn, the last one again and again, on one
    /// connection; its URL.
    fn serve(answers: Vec<String>) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let mut number = 0;
            while stream.read(&mut request).is_ok_and(|count| count > 0) {
                stream.write_all(answers[number.min(answers.len() - 1)].as_bytes()).unwrap();
                number += 1;
            }
        });
        (url, thread)
    }

    /// One client places order 17 and waits for its end, while monitoring answers so.
    fn wait_for_17(words: &str, statuses: Vec<String>) -> (Sent, Orders) {
        let (desk, desk_thread) = serve(vec![answer("201 Created", "{\"order_id\":17}")]);
        let (monitoring, monitoring_thread) = serve(statuses);
        let plan = plan(&format!(
            "--wait --orders 1 --warmup 0 --connections 1 --items 1 --create {desk} --monitoring {monitoring} {words}"
        ));
        let (live, orders) = (Live::default(), Orders::new(17));
        let clients = Clients::new(&plan, Clock::start(), &live, &orders, &[5]).unwrap();
        let sent = clients.run().unwrap();
        desk_thread.join().unwrap();
        monitoring_thread.join().unwrap();
        (sent, orders)
    }

    #[test]
    fn a_client_asks_until_its_order_has_ended() {
        let statuses = vec![
            answer("404 Not Found", "{\"status\":404}"),
            answer("200 OK", "{\"order_id\":17,\"step\":\"UNDER_RESERVATION\"}"),
            answer("503 Service Unavailable", ""),
            answer("200 OK", "{\"order_id\":17,\"step\":\"SHIPPING\"}"),
        ];
        let (sent, orders) = wait_for_17("--settle 20", statuses);
        assert_eq!(sent.waits, Waits { answers: 3, open: 1, unheard: 1, given_up: 0 });
        assert_eq!(sent.refused, BTreeMap::from([(503, 1)]));
        assert_eq!(sent.errors.total(), 0);
        assert_eq!(orders.open().count(), 0);
        let (create, end) = (sent.tally.create.summary(), sent.tally.end.summary());
        assert_eq!((create.count, end.count), (1, 1));
        assert!(end.max > create.max, "it was refused and waited");
    }

    #[test]
    fn an_order_that_does_not_end_is_given_up_and_stays_open() {
        let status = answer("200 OK", "{\"order_id\":17,\"step\":\"UNDER_RESERVATION\"}");
        let (sent, orders) = wait_for_17("--settle 0.05", vec![status]);
        assert_eq!(sent.waits.given_up, 1);
        assert_eq!(sent.waits.answers, sent.waits.open);
        assert_eq!(orders.open().map(|place| orders.order(place)).collect::<Vec<_>>(), [17]);
        assert_eq!(sent.tally.end.known(), None);
    }
}
