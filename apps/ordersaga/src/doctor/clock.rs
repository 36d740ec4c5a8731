//! Clocks: this machine's, and the services' against it.

use std::time::{Duration, SystemTime};

use super::finding::{Finding, or_ok};
use super::seen::Surroundings;

/// `Date` of HTTP has whole seconds, and the answer takes its time.
const NEAR: Duration = Duration::from_secs(3);
/// So far from each other that a deadline of a minute is felt.
const FAR: Duration = Duration::from_secs(30);
/// What a clock that is only slewed may lose while `doctor` looks.
const JUMP: Duration = Duration::from_millis(500);

const SYNC: &str = "timedatectl set-ntp true";

/// The wall clock goes as the monotonic one does.
pub(super) fn steady(seen: &Surroundings) -> Vec<Finding> {
    let (wall, steady) = seen.began;
    vec![judge_steady(wall + steady.elapsed(), SystemTime::now())]
}

fn judge_steady(expected: SystemTime, found: SystemTime) -> Finding {
    let off = apart(expected, found);
    if off < JUMP {
        return Finding::ok("it goes steadily");
    }
    let back = if found < expected { "back" } else { "forward" };
    let what = format!("it was set {back} by {:.1} s while doctor looked", off.as_secs_f64());
    Finding::warning(what).mend(SYNC)
}

/// The services' clocks against this machine's.
pub(super) fn of_services(seen: &Surroundings) -> Vec<Finding> {
    let mut found = Vec::new();
    for one in &seen.services {
        let Ok(answer) = &one.health else { continue };
        let date = answer.date.as_deref().and_then(|date| httpdate::parse_http_date(date).ok());
        match date {
            Some(date) => found.extend(judge(one.service.name(), date, one.at)),
            None => found.push(Finding::unknown(format!("{} tells no time", one.service))),
        }
    }
    if seen.services.iter().all(|one| one.health.is_err()) {
        return vec![Finding::unknown("no service answers")];
    }
    or_ok(found, "the services' clocks agree with this machine's")
}

fn judge(service: &str, theirs: SystemTime, ours: SystemTime) -> Option<Finding> {
    let off = apart(theirs, ours);
    let side = if theirs < ours { "behind" } else { "ahead of" };
    let what = format!("the clock of {service} is {} s {side} this machine's", off.as_secs());
    let mend = format!("on both machines: {SYNC}");
    match off {
        off if off <= NEAR => None,
        off if off <= FAR => Some(Finding::warning(what).mend(mend)),
        _ => Some(Finding::problem(what).mend(mend)),
    }
}

fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn clocks_far_apart_are_told_with_their_side() {
        let at = |seconds| NOW + Duration::from_secs(seconds);
        assert_eq!(judge("service-store", at(100), at(102)), None);
        let behind = judge("service-store", at(100), at(110)).unwrap();
        assert_eq!(behind.level, Level::Warning);
        assert!(behind.what.contains("10 s behind"), "{}", behind.what);
        let ahead = judge("service-store", at(200), at(110)).unwrap();
        assert_eq!(ahead.level, Level::Problem);
        assert!(ahead.what.contains("90 s ahead"), "{}", ahead.what);
    }

    #[test]
    fn a_clock_that_was_set_is_told() {
        let later = NOW + Duration::from_secs(5);
        assert_eq!(judge_steady(later, later + Duration::from_millis(20)).level, Level::Ok);
        assert!(judge_steady(later, NOW).what.contains("back by 5.0 s"));
    }
}
