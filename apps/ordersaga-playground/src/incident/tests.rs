use super::*;

const MS: Duration = Duration::from_millis(1);

/// An incident and the time that has passed.
struct Game {
    incident: Incident,
    now: Instant,
    next_id: i64,
}

fn works() -> Answers {
    let works = || Answer::Works(MS);
    Answers { create: works(), reserve: works(), status: works(), items: works(), cancel: works() }
}

impl Game {
    fn new(kind: Kind) -> Self {
        let now = Instant::now();
        let ended = (kind == Kind::Kill).then_some(now);
        let fault = Fault { part: "service-store".to_owned(), kind, began: now, ended };
        Self { incident: Incident::new("run".to_owned(), fault), now, next_id: 1 }
    }

    /// A round of half a second, in which an order is acknowledged if creates work.
    fn round(&mut self, answers: Answers, all_ready: bool, seen: impl Fn(i64) -> Seen) -> Plan {
        let plan = self.incident.plan().expect("it is over");
        let began = self.now;
        self.now += 500 * MS;
        let works = |answer: &Answer| matches!(answer, Answer::Works(_));
        let placed = (plan.place.is_some() && works(&answers.create)).then_some(self.next_id);
        self.next_id += i64::from(placed.is_some());
        let asked = plan.ask.iter().copied().chain(placed);
        let round = Round {
            began,
            ended: self.now,
            placed,
            is_cancelled: works(&answers.cancel),
            seen: asked.map(|id| (id, seen(id))).collect(),
            answers,
            all_ready,
        };
        self.incident.apply(&plan, round);
        plan
    }
}

/// Every second order is cancelled.
fn rightly(id: i64) -> Seen {
    if id % 2 == 0 { Seen::Cancelled { by_client: true } } else { Seen::Shipping }
}

fn store_is_away() -> Answers {
    let fails = || Answer::Fails("connection refused".to_owned());
    Answers { reserve: Answer::Waits, items: fails(), ..works() }
}

#[test]
fn a_killed_part_heals_when_all_works_and_all_orders_have_ended() {
    let mut game = Game::new(Kind::Kill);
    for _ in 0..4 {
        game.round(store_is_away(), false, |_| Seen::Undecided);
        assert_eq!(game.incident.phase(), Phase::Broken);
    }
    assert_eq!((game.incident.placed(), game.incident.open()), (4, 4));
    // It is up, and does not answer for the orders yet.
    game.round(store_is_away(), true, |_| Seen::Undecided);
    assert_eq!(game.incident.phase(), Phase::Healing);
    game.round(works(), true, |_| Seen::Undecided);
    assert!(game.incident.is_settling());
    // It was the last, and is not cancelled any more.
    let seen = |id| if id == 6 { Seen::Shipping } else { rightly(id) };
    let plan = game.round(Answers::default(), true, seen);
    assert_eq!((plan.place, plan.cancel, plan.ask.len()), (None, None, 6));
    assert_eq!(game.incident.phase(), Phase::Healed(3500 * MS));
    assert_eq!((game.incident.placed(), game.incident.lost()), (6, 0));
    assert_eq!(game.incident.answers, works(), "the last that tried everything");
    assert_eq!(game.incident.plan(), None);
}

#[test]
fn a_frozen_part_does_not_heal_before_it_is_thawed() {
    let mut game = Game::new(Kind::Freeze);
    for _ in 0..3 {
        game.round(works(), true, rightly);
        assert_eq!(game.incident.phase(), Phase::Broken);
    }
    game.incident.end_faults_of("service-store", game.now);
    game.round(works(), true, rightly);
    let phase = game.incident.phase();
    if phase == Phase::Healing {
        game.round(Answers::default(), true, rightly);
    }
    assert!(matches!(game.incident.phase(), Phase::Healed(_)), "{phase:?}");
}

#[test]
fn a_round_that_began_before_the_thaw_proves_nothing() {
    let mut game = Game::new(Kind::Freeze);
    let plan = game.incident.plan().unwrap();
    let began = game.now;
    game.incident.end_faults_of("service-store", began + MS);
    let answers = works();
    let ended = began + 2 * MS;
    let seen = Vec::new();
    let round =
        Round { began, ended, placed: None, is_cancelled: true, seen, answers, all_ready: true };
    game.incident.apply(&plan, round);
    assert!(!game.incident.is_settling());
}

#[test]
fn a_key_is_used_again_until_it_is_answered() {
    let mut game = Game::new(Kind::Kill);
    let fails = Answers { create: Answer::Fails("no answer".to_owned()), ..Answers::default() };
    let first = game.round(fails.clone(), false, rightly).place;
    assert_eq!(game.round(fails, false, rightly).place, first);
    assert_eq!(game.round(works(), false, rightly).place, first);
    assert_ne!(game.round(works(), false, rightly).place, first);
}

#[test]
fn a_cancellation_is_sent_again_until_it_is_answered() {
    let mut game = Game::new(Kind::Kill);
    game.round(works(), false, rightly);
    game.round(works(), false, rightly);
    let fails = Answers { cancel: Answer::Fails("no answer".to_owned()), ..works() };
    assert_eq!(game.round(fails.clone(), true, rightly).cancel, Some(2));
    assert_eq!(game.round(fails, true, rightly).cancel, Some(2));
    assert!(!game.incident.is_settling());
    assert_eq!(game.round(works(), true, rightly).cancel, Some(2));
    assert!(game.incident.is_settling());
}

#[test]
fn an_order_that_never_ends_is_lost() {
    let mut game = Game::new(Kind::Kill);
    game.round(works(), true, |_| Seen::Unknown);
    while !game.incident.is_over() {
        game.round(Answers::default(), true, |_| Seen::Unknown);
    }
    assert_eq!((game.incident.phase(), game.incident.lost()), (Phase::NotHealed, 1));
}

#[test]
fn a_shipped_order_that_somebody_else_cancelled_is_lost() {
    let mut game = Game::new(Kind::Kill);
    game.round(works(), true, |_| Seen::Cancelled { by_client: true });
    assert!(game.incident.is_over());
    assert_eq!(game.incident.lost(), 1);
}

#[test]
fn a_further_fault_begins_healing_anew() {
    let mut game = Game::new(Kind::Kill);
    game.round(works(), true, |_| Seen::Undecided);
    assert!(game.incident.is_settling());
    let (began, part) = (game.now, "redis".to_owned());
    game.incident.add(Fault { part, kind: Kind::Freeze, began, ended: None });
    game.round(works(), true, rightly);
    assert_eq!(game.incident.phase(), Phase::Broken);
    assert!(!game.incident.is_settling());
}
