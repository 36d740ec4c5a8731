use ordersaga_checker::Violation;

use super::*;
use crate::report::Second;

const KINDS: [(&str, &str); 8] = [
    ("kill -9", "postgres shard1"),
    ("frozen", "service-store"),
    ("connection cut", "store → redis"),
    ("answers lost", "create-order → postgres"),
    ("connections reset", "monitoring → broker"),
    ("poison records", "topics"),
    ("clock off", "service-create-order, +3600 s"),
    ("disk full", "postgres store"),
];

/// A run as it might have been.
fn sample(count: u32, violations: Vec<Broken>) -> Report {
    let mut random = fastrand::Rng::with_seed(7);
    let faults: Vec<_> = (0..count)
        .map(|number| {
            let (kind, target) = KINDS[random.usize(..KINDS.len())];
            let started = 12.0 + 14.0 * f64::from(number);
            FaultReport {
                kind: kind.to_owned(),
                target: target.to_owned(),
                overlapped: random.u8(..3) == 0,
                started,
                healed: started + 1.0 + 7.0 * random.f64(),
                recovery: Some(0.1 + 4.0 * random.f64()),
                acknowledged: random.usize(..900),
                ended: random.usize(..900),
            }
        })
        .collect();
    let seconds = 20 + 14 * count;
    let timeline: Vec<_> =
        (0..seconds).map(|second| second_of(&faults, &mut random, f64::from(second))).collect();
    Report {
        seed: 1,
        command: format!("cargo ordersaga chaos --seed 1 --orders 20000 --faults {count}"),
        started_at: "2026-01-01T12:00:00Z".to_owned(),
        seconds: f64::from(seconds),
        machine: Machine {
            cores: 2,
            kernel: "6.1.0".to_owned(),
            ordersaga: "0.1.0",
            build: "debug",
        },
        not_injected: Vec::new(),
        orders: Orders {
            probes: 0,
            wanted: 20_000,
            requests: 21_711,
            acknowledged: 19_874,
            made: 19_991,
            shipping: 14_310,
            cancelled: [("client".to_owned(), 3_120), ("store".to_owned(), 2_539)].into(),
            cancellations: 3_120,
            reads: 41_200,
            refused: [(0, 512), (503, 1_199)].into(),
            records: 60_412,
            dead_letters: 44,
        },
        recovery: Report::recovery_of(&faults),
        faults,
        timeline,
        restarts: [("store".to_owned(), 2)].into(),
        violations,
    }
}

fn second_of(faults: &[FaultReport], random: &mut fastrand::Rng, now: f64) -> Second {
    let under = faults.iter().find(|fault| (fault.started..fault.healed).contains(&now));
    match under.map(|fault| Category::of(&fault.kind)) {
        Some(Category::Network) => Second {
            created: random.usize(..6),
            ended: random.usize(..4),
            errors: random.usize(10..60),
            p99_ms: if random.bool() { 2_500.0 * random.f64() } else { 0.0 },
        },
        Some(Category::Process) => Second {
            created: random.usize(50..70),
            ended: random.usize(..20),
            errors: random.usize(..15),
            p99_ms: 60.0 + 400.0 * random.f64(),
        },
        _ => Second {
            created: random.usize(70..90),
            ended: random.usize(60..130),
            errors: 0,
            p99_ms: 9.0 + 8.0 * random.f64(),
        },
    }
}

fn broken() -> Vec<Broken> {
    let violation = Violation {
        invariant: "I3",
        order: Some(4_711),
        what: "it is CANCELLED and its <reservation> of 2 is still live".to_owned(),
    };
    let history = vec![
        "   31.412 s  client 77    POST create (key \"a&b\") -> 201".to_owned(),
        "   31.430 s  incoming     OrderPlaced  partition 3, offset 118".to_owned(),
    ];
    vec![Broken { violation, history }]
}

#[test]
fn texts_are_escaped_and_nothing_is_fetched() {
    let page = page(&sample(40, broken()));
    assert!(page.contains("its &lt;reservation&gt; of 2") && page.contains("&quot;a&amp;b&quot;"));
    assert!(!page.contains("<reservation>"));
    for outside in ["http://", "https://", "<script", "<link", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("1 violation<"));
}

#[test]
fn every_fault_is_drawn_and_no_figure_is_missing() {
    let report = sample(200, Vec::new());
    let page = page(&report);
    assert_eq!(page.matches("<g class=\"fault ").count(), 200);
    assert!(page.contains("No promise was broken") && page.contains("19,991"));
    assert!(!page.contains("NaN") && !page.contains("inf\""));
}

#[test]
fn a_run_in_which_nothing_happened_has_a_page() {
    let report = Report { seconds: 0.0, timeline: Vec::new(), ..sample(0, Vec::new()) };
    let page = page(&Report { orders: Orders::default(), ..report });
    assert!(!page.contains("NaN"));
}
