//! Shows steps as they run: with spinners on a terminal, else a line for each that ended.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use ordersaga_devstack::{Report, Step};
use parking_lot::Mutex;

/// A report for people.
pub(crate) fn report() -> Report {
    if std::io::stderr().is_terminal() { spinners() } else { lines() }
}

/// How a duration is shown everywhere.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn lines() -> Report {
    Report::new(|step| match step {
        Step::Begin(_) => {}
        Step::End(name, time) => say!("{name}: {}", seconds(time)),
        Step::Failed(name) => say!("{name}: failed"),
        Step::Note(text) => say!("{text}"),
    })
}

fn spinners() -> Report {
    let all = MultiProgress::new();
    let running: Arc<Mutex<HashMap<String, ProgressBar>>> = Arc::default();
    Report::new(move |step| match step {
        Step::Begin(name) => {
            let bar =
                all.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed}")));
            bar.set_message(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            running.lock().insert(name.to_owned(), bar);
        }
        Step::End(name, time) => finish(&running, name, format!("✓ {name}: {}", seconds(time))),
        Step::Failed(name) => finish(&running, name, format!("✗ {name}")),
        Step::Note(text) => all.suspend(|| say!("{text}")),
    })
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn finish(running: &Mutex<HashMap<String, ProgressBar>>, name: &str, text: String) {
    if let Some(bar) = running.lock().remove(name) {
        bar.set_style(style("{msg}"));
        bar.finish_with_message(text);
    }
}
