//! What a check found, and how it is told.

use std::fmt::Write;

use ordersaga_terminal::line;
use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It could not be checked.
    Unknown,
    /// To be looked at; nothing fails yet.
    Warning,
    /// Something fails, or does not start.
    Problem,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// A sentence.
    pub(super) what: String,
    /// The command, or the sentence, that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mend: Option<String>,
    /// The entry of docs/runbook.md about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) runbook: Option<&'static str>,
}

impl Finding {
    fn new(level: Level, what: impl Into<String>) -> Self {
        Self { level, what: what.into(), mend: None, runbook: None }
    }

    pub(super) fn ok(what: impl Into<String>) -> Self {
        Self::new(Level::Ok, what)
    }

    pub(super) fn unknown(what: impl Into<String>) -> Self {
        Self::new(Level::Unknown, what)
    }

    pub(super) fn warning(what: impl Into<String>) -> Self {
        Self::new(Level::Warning, what)
    }

    pub(super) fn problem(what: impl Into<String>) -> Self {
        Self::new(Level::Problem, what)
    }

    /// With what mends it.
    pub(super) fn mend(mut self, how: impl Into<String>) -> Self {
        self.mend = Some(how.into());
        self
    }

    /// With its entry of the runbook, by the alert's name.
    pub(super) const fn runbook(mut self, alert: &'static str) -> Self {
        self.runbook = Some(alert);
        self
    }
}

/// All findings of a check, or one that says that all is well.
pub(super) fn or_ok(found: Vec<Finding>, well: impl Into<String>) -> Vec<Finding> {
    if found.is_empty() { vec![Finding::ok(well)] } else { found }
}

/// A finding with the check that made it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Told {
    /// What the check is about: a heading.
    pub(super) subject: &'static str,
    /// The check's name.
    pub(super) check: &'static str,
    #[serde(flatten)]
    pub(super) finding: Finding,
}

/// All that `doctor` found: its JSON form, documented in docs/operations.md.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Of this form.
    version: u32,
    /// The tool's version.
    tool: &'static str,
    /// Seconds since 1970 by this machine's clock.
    time: u64,
    /// There is no problem.
    healthy: bool,
    problems: usize,
    warnings: usize,
    unknown: usize,
    findings: Vec<Told>,
}

impl Report {
    pub(super) fn new(time: u64, findings: Vec<Told>) -> Self {
        let count = |level| findings.iter().filter(|told| told.finding.level == level).count();
        let problems = count(Level::Problem);
        Self {
            version: 1,
            tool: env!("CARGO_PKG_VERSION"),
            time,
            healthy: problems == 0,
            problems,
            warnings: count(Level::Warning),
            unknown: count(Level::Unknown),
            findings,
        }
    }

    pub(super) const fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// For people: the subjects with a line for each finding, and what mends it below.
    pub(super) fn text(&self) -> String {
        let width = self.findings.iter().map(|told| told.check.len()).max().unwrap_or_default();
        let (mut text, mut subject) = (String::new(), "");
        for told in &self.findings {
            if subject != told.subject {
                let blank = if subject.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{blank}{}", told.subject);
                subject = told.subject;
            }
            let Finding { level, what, mend, runbook } = &told.finding;
            let _ = writeln!(text, "  {:7}  {:width$}  {}", level.word(), told.check, line(what));
            let indent = " ".repeat(width + 13);
            if let Some(mend) = mend {
                let _ = writeln!(text, "{indent}→ {}", line(mend));
            }
            if let Some(alert) = runbook {
                let _ = writeln!(text, "{indent}  docs/runbook.md#{}", alert.to_lowercase());
            }
        }
        let _ = write!(text, "\n{}", self.sum());
        text
    }

    fn sum(&self) -> String {
        let many = |count: usize, one: &str, several: &str| match count {
            0 => format!("no {several}"),
            1 => format!("1 {one}"),
            count => format!("{count} {several}"),
        };
        let problems = many(self.problems, "problem", "problems");
        let warnings = many(self.warnings, "warning", "warnings");
        let unknown = if self.unknown == 0 {
            String::new()
        } else {
            format!(", {} could not be checked", self.unknown)
        };
        let mut sum = format!("{problems}, {warnings}{unknown}.");
        sum[..1].make_ascii_uppercase();
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: Vec<Finding>) -> Report {
        let told = |finding| Told { subject: "services", check: "ready", finding };
        Report::new(1, findings.into_iter().map(told).collect())
    }

    #[test]
    fn each_finding_is_a_line_with_what_mends_it_below() {
        let found = vec![
            Finding::ok("service-store is ready"),
            Finding::problem("it is \u{1b}[2J away").mend("ordersaga up").runbook("ServiceDown"),
        ];
        let report = report(found);
        assert!(!report.is_healthy());
        assert_eq!(
            report.text(),
            "services\n  ok       ready  service-store is ready\n  problem  ready  it is \\u{1b}[2J away\n                  \
             → ordersaga up\n                    docs/runbook.md#servicedown\n\n1 problem, no warnings."
        );
    }

    #[test]
    fn what_could_not_be_checked_is_no_problem() {
        let report = report(vec![Finding::unknown("nobody knows"), Finding::warning("soon")]);
        assert!(report.is_healthy());
        assert!(report.text().ends_with("No problems, 1 warning, 1 could not be checked."));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["findings"][0]["level"], "unknown");
        assert_eq!(json["findings"][1]["what"], "soon");
        assert_eq!(json["healthy"], true);
    }
}
