//! Orders and letters: what monitoring says of them.

use serde_json::Value;

use super::finding::{Finding, or_ok};
use super::seen::{Asked, Surroundings};

/// So many are named; the rest is counted.
const NAMED: usize = 5;

/// The body of an answer, or why there is none.
fn body(asked: &Asked) -> Result<&Value, Finding> {
    match asked {
        Ok(answer) if answer.status == 200 => Ok(&answer.body),
        Ok(answer) => Err(Finding::unknown(answer.problem())),
        Err(error) => Err(Finding::unknown(error)),
    }
}

fn judged(asked: &Asked, judge: fn(&Value) -> Vec<Finding>, well: &str) -> Vec<Finding> {
    body(asked).map_or_else(|why| vec![why], |body| or_ok(judge(body), well))
}

/// Orders that wait for too long; those are late of which only monitoring has not heard yet.
pub(super) fn stuck(seen: &Surroundings) -> Vec<Finding> {
    judged(&seen.saga.stuck, judge_stuck, "no order waits for too long")
}

fn judge_stuck(list: &Value) -> Vec<Finding> {
    let (late, stuck): (Vec<_>, Vec<_>) =
        items(list).iter().partition(|item| item["is_late"] == true);
    let mut found: Vec<_> = stuck.iter().take(NAMED).map(|item| judge_order(item)).collect();
    if stuck.len() > NAMED {
        let more = stuck.len() - NAMED;
        let what = format!("{more} or more further orders are stuck");
        found.push(Finding::problem(what).mend("curl 'URL/api/v1/orders/stuck?limit=200'"));
    }
    if !late.is_empty() {
        let what = format!("monitoring is late with {} orders: its consumer is behind", late.len());
        found.push(
            Finding::warning(what)
                .mend("ordersaga logs service-monitoring-order")
                .runbook("ConsumerLagGrowing"),
        );
    }
    let missing = list["missing_shards"].as_array().into_iter().flatten();
    for shard in missing.filter_map(Value::as_str) {
        let what = format!("orders on {shard} cannot be looked at");
        found.push(Finding::unknown(what).mend("start that shard").runbook("ShardDown"));
    }
    found
}

fn judge_order(item: &Value) -> Finding {
    let id = item["order"]["order_id"].as_i64().unwrap_or_default();
    let since = item["since"].as_str().unwrap_or_default();
    let (awaited, mend) = match item["waits_for"].as_str().unwrap_or_default() {
        "ANSWER" => (
            "the store's answer",
            "see that the store goes on: ordersaga logs service-store; the deadline ends the order",
        ),
        "RELEASE" => (
            "the store to give its stock back",
            "see that the store goes on: ordersaga logs service-store",
        ),
        "PLACING" => (
            "the news that it was placed",
            "see that create-order publishes: ordersaga logs service-create-order",
        ),
        other => (other, "ordersaga logs"),
    };
    Finding::problem(format!("order {id} is stuck since {since}: it waits for {awaited}"))
        .mend(mend)
        .runbook("OrdersNotEnding")
}

/// Records that a consumer could not read, and that nobody has dealt with.
pub(super) fn dead_letters(seen: &Surroundings) -> Vec<Finding> {
    judged(&seen.saga.letters, judge_letters, "none is open")
}

fn judge_letters(list: &Value) -> Vec<Finding> {
    let letters = items(list);
    let mut found: Vec<_> = letters.iter().take(NAMED).map(judge_letter).collect();
    if letters.len() > NAMED || !list["next"].is_null() {
        let what = format!("there are {} or more further dead letters", letters.len() - NAMED);
        found.push(Finding::warning(what).mend("ordersaga dlq list").runbook("DeadLetters"));
    }
    if list["is_complete"] == false {
        found.push(Finding::unknown("not all dead letters have been read yet").mend("try again"));
    }
    found
}

fn judge_letter(letter: &Value) -> Finding {
    let place = format!(
        "{}/{}/{}",
        letter["topic"].as_str().unwrap_or_default(),
        letter["partition"],
        letter["offset"]
    );
    let refusal = &letter["refusals"][0];
    let text = |name: &str| refusal[name].as_str().unwrap_or_default();
    let what = format!("dead letter {place}, refused by {}: {}", text("consumer"), text("error"));
    let mend = format!("ordersaga dlq show {place}, then: ordersaga dlq replay or discard {place}");
    Finding::warning(what).mend(mend).runbook("DeadLetters")
}

/// Orders that the deadline ended in the last minutes: the store was silent.
pub(super) fn deadlines(seen: &Surroundings) -> Vec<Finding> {
    judged(&seen.saga.stats, judge_minutes, "none ended an order in the last minutes")
}

fn judge_minutes(stats: &Value) -> Vec<Finding> {
    let minutes = stats["minutes"].as_array().into_iter().flatten();
    let ended: i64 = minutes.filter_map(|minute| minute["cancelled_by_deadline"].as_i64()).sum();
    if ended == 0 {
        return Vec::new();
    }
    let what = format!("{ended} orders were cancelled in the last minutes: the store was silent");
    let mend = "see what the store did then: ordersaga logs service-store";
    vec![Finding::warning(what).mend(mend).runbook("OrdersPastDeadline")]
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Level;
    use super::*;

    fn waiting(id: i64, is_late: bool) -> Value {
        json!({"order": {"order_id": id}, "waits_for": "ANSWER", "since": "T", "is_late": is_late})
    }

    #[test]
    fn a_stuck_order_is_named_and_a_late_one_is_told_apart() {
        let list =
            json!({"items": [waiting(17, false), waiting(18, true)], "missing_shards": ["shard2"]});
        let found = judge_stuck(&list);
        assert_eq!(
            found.iter().map(|one| one.level).collect::<Vec<_>>(),
            [Level::Problem, Level::Warning, Level::Unknown]
        );
        assert_eq!(found[0].what, "order 17 is stuck since T: it waits for the store's answer");
        let many: Vec<_> = (0..9).map(|id| waiting(id, false)).collect();
        let found = judge_stuck(&json!({"items": many, "missing_shards": []}));
        assert_eq!(found.len(), NAMED + 1);
        assert!(found[NAMED].what.starts_with("4 or more"), "{}", found[NAMED].what);
    }

    #[test]
    fn a_dead_letter_is_named_with_the_commands_for_it() {
        let letter = json!({"topic": "reset", "partition": 8, "offset": 12,
            "refusals": [{"consumer": "/service-store", "error": "version 2"}]});
        let found = judge_letters(&json!({"items": [letter], "is_complete": true}));
        assert_eq!(found[0].what, "dead letter reset/8/12, refused by /service-store: version 2");
        assert!(found[0].mend.as_deref().unwrap().starts_with("ordersaga dlq show reset/8/12"));
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn orders_that_their_deadline_ended_are_told() {
        let minutes = |count| json!({"minutes": [{"cancelled_by_deadline": count}]});
        assert_eq!(judge_minutes(&minutes(0)), []);
        assert_eq!(judge_minutes(&minutes(3))[0].runbook, Some("OrdersPastDeadline"));
    }
}
