//! One way to live and to stop: tasks belong to a stage, a stage stops when the one before it has
//! finished, and a task that ends by itself takes the process down rather than leaving it half alive.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// When a task is to stop, relative to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What takes new work: HTTP servers and consumers.
    Intake,
    /// What finishes work already taken: group-commit workers.
    Drain,
    /// What tells the world: the outbox relay and its producer.
    Publish,
}

const STAGES: [Stage; 3] = [Stage::Intake, Stage::Drain, Stage::Publish];

/// The tasks of a process.
#[derive(Clone)]
pub struct Lifecycle(Arc<Shared>);

struct Shared {
    grace: Duration,
    stages: [StageState; 3],
    /// Cancelled when a task ended although nobody asked it to.
    crashed: CancellationToken,
    failed: AtomicBool,
}

#[derive(Default)]
struct StageState {
    stop: CancellationToken,
    tasks: TaskTracker,
    running: Mutex<Vec<&'static str>>,
}

impl Lifecycle {
    /// A lifecycle whose stages have `grace` together to stop.
    pub fn new(grace: Duration) -> Self {
        Self(Arc::new(Shared {
            grace,
            stages: Default::default(),
            crashed: CancellationToken::new(),
            failed: AtomicBool::new(false),
        }))
    }

    fn stage(&self, stage: Stage) -> &StageState {
        &self.0.stages[stage as usize]
    }

    /// Cancelled when the tasks of `stage` are to stop.
    pub fn token(&self, stage: Stage) -> CancellationToken {
        self.stage(stage).stop.clone()
    }

    /// Runs a task. It is to end, with `Ok`, soon after its stage's token is cancelled; an end
    /// before that, an error or a panic stops the process with an error.
    pub fn spawn(
        &self,
        stage: Stage,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let lifecycle = self.clone();
        self.stage(stage).running.lock().push(name);
        self.stage(stage).tasks.spawn(async move {
            let outcome = AssertUnwindSafe(task).catch_unwind().await;
            lifecycle.ended(stage, name, outcome);
        });
    }

    fn ended(
        &self,
        stage: Stage,
        name: &'static str,
        outcome: Result<anyhow::Result<()>, Box<dyn Any + Send>>,
    ) {
        let mut running = self.stage(stage).running.lock();
        if let Some(at) = running.iter().position(|other| *other == name) {
            running.swap_remove(at);
        }
        drop(running);
        match outcome {
            Ok(Ok(())) if self.token(stage).is_cancelled() => return,
            Ok(Ok(())) => tracing::error!(task = name, "task ended although it was not stopped"),
            Ok(Err(error)) => {
                tracing::error!(task = name, error = format!("{error:#}"), "task failed");
            }
            Err(panic) => {
                tracing::error!(task = name, panic = panic_message(&*panic), "task panicked");
            }
        }
        self.0.failed.store(true, Ordering::Release);
        self.0.crashed.cancel();
    }

    /// Runs until SIGTERM, SIGINT or the end of a task, then stops stage by stage. Success means
    /// that every task ended well and in time. A second signal ends the process at once.
    pub async fn run(self) -> ExitCode {
        let (sender, receiver) = mpsc::channel(2);
        if let Err(error) = forward_signals(&sender) {
            tracing::error!(%error, "signals cannot be received");
            return ExitCode::FAILURE;
        }
        match self.run_until(receiver).await {
            Outcome::Stopped => ExitCode::SUCCESS,
            Outcome::Failed => ExitCode::FAILURE,
            // Returning would wait for blocking tasks while the runtime is dropped.
            Outcome::Interrupted => std::process::exit(130),
        }
    }

    async fn run_until(self, mut signals: mpsc::Receiver<&'static str>) -> Outcome {
        tokio::select! {
            Some(signal) = signals.recv() => tracing::info!(signal, "stopping"),
            () = self.0.crashed.cancelled() => tracing::error!("stopping after a failure"),
        }
        tokio::select! {
            in_time = self.stop() => {
                if in_time && !self.0.failed.load(Ordering::Acquire) {
                    tracing::info!("stopped");
                    Outcome::Stopped
                } else {
                    Outcome::Failed
                }
            }
            Some(signal) = signals.recv() => {
                tracing::warn!(signal, "second signal: exiting at once");
                Outcome::Interrupted
            }
        }
    }

    /// Stops stage by stage; false when the grace was over first.
    async fn stop(&self) -> bool {
        let deadline = Instant::now() + self.0.grace;
        let mut in_time = true;
        for stage in STAGES {
            let StageState { stop, tasks, running } = self.stage(stage);
            stop.cancel();
            tasks.close();
            if timeout_at(deadline, tasks.wait()).await.is_err() {
                let running = running.lock().join(", ");
                tracing::error!(?stage, running, "tasks did not stop in time");
                in_time = false;
            }
        }
        in_time
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Stopped,
    Failed,
    Interrupted,
}

fn forward_signals(sender: &mpsc::Sender<&'static str>) -> std::io::Result<()> {
    for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")]
    {
        let mut received = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while received.recv().await.is_some() && sender.send(name).await.is_ok() {}
        });
    }
    Ok(())
}

/// The text of a panic's payload.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    async fn outcome(lifecycle: Lifecycle, signals: &[&'static str]) -> Outcome {
        let (sender, receiver) = mpsc::channel(2);
        for signal in signals {
            sender.send(*signal).await.unwrap();
        }
        let outcome = lifecycle.run_until(receiver);
        tokio::time::timeout(Duration::from_secs(10), outcome)
            .await
            .expect("it must stop by itself")
    }

    #[tokio::test]
    async fn stages_stop_one_after_the_other() {
        let lifecycle = Lifecycle::new(LONG);
        let order = Arc::new(Mutex::new(Vec::new()));
        for stage in [Stage::Publish, Stage::Intake, Stage::Drain] {
            let (stop, order) = (lifecycle.token(stage), order.clone());
            lifecycle.spawn(stage, "worker", async move {
                stop.cancelled().await;
                // Gives a wrong implementation, which stops all stages at once, time to show itself.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                order.lock().push(stage);
                Ok(())
            });
        }
        assert_eq!(outcome(lifecycle, &["SIGTERM"]).await, Outcome::Stopped);
        assert_eq!(*order.lock(), [Stage::Intake, Stage::Drain, Stage::Publish]);
    }

    #[tokio::test]
    async fn a_later_stage_runs_until_the_earlier_has_finished() {
        let lifecycle = Lifecycle::new(LONG);
        let (intake, drain) = (lifecycle.token(Stage::Intake), lifecycle.token(Stage::Drain));
        lifecycle.spawn(Stage::Intake, "http", async move {
            intake.cancelled().await;
            assert!(!drain.is_cancelled(), "the worker must still be there for the last requests");
            Ok(())
        });
        assert_eq!(outcome(lifecycle, &["SIGINT"]).await, Outcome::Stopped);
    }

    #[tokio::test]
    async fn errors_panics_and_early_ends_stop_the_process_with_an_error() {
        for kind in ["error", "panic", "end"] {
            let lifecycle = Lifecycle::new(LONG);
            let stop = lifecycle.token(Stage::Intake);
            let others = Arc::new(AtomicBool::new(false));
            let saw = others.clone();
            lifecycle.spawn(Stage::Intake, "well-behaved", async move {
                stop.cancelled().await;
                saw.store(true, Ordering::Release);
                Ok(())
            });
            lifecycle.spawn(Stage::Publish, "broken", async move {
                match kind {
                    "error" => bail!("the broker is not what it was"),
                    "panic" => panic!("on purpose"),
                    _ => Ok(()),
                }
            });
            assert_eq!(outcome(lifecycle, &[]).await, Outcome::Failed, "{kind}");
            assert!(others.load(Ordering::Acquire), "the other tasks are stopped gracefully");
        }
    }

    #[tokio::test]
    async fn an_error_while_stopping_is_an_error() {
        let lifecycle = Lifecycle::new(LONG);
        let stop = lifecycle.token(Stage::Publish);
        lifecycle.spawn(Stage::Publish, "relay", async move {
            stop.cancelled().await;
            bail!("flush failed")
        });
        assert_eq!(outcome(lifecycle, &["SIGTERM"]).await, Outcome::Failed);
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_left_behind_after_the_grace() {
        let lifecycle = Lifecycle::new(Duration::from_millis(20));
        lifecycle.spawn(Stage::Drain, "stuck", std::future::pending());
        assert_eq!(outcome(lifecycle, &["SIGTERM"]).await, Outcome::Failed);
    }

    #[tokio::test]
    async fn a_second_signal_does_not_wait() {
        let lifecycle = Lifecycle::new(LONG);
        lifecycle.spawn(Stage::Intake, "stuck", std::future::pending());
        assert_eq!(outcome(lifecycle, &["SIGINT", "SIGINT"]).await, Outcome::Interrupted);
    }
}
