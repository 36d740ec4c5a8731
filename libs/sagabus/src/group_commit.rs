//! Group commit in the application: requests that arrive while a batch commits form the next one.
//! At low load a request waits for no other; under load batches grow, paced by what they cost, and
//! the cost of a commit is shared.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::pace::Pace;

/// How long nobody comes until nobody is expected.
const QUIET: Duration = Duration::from_micros(2_500);

/// Where requests join the batch that is forming.
pub struct GroupCommit<Q, A> {
    queue: mpsc::Sender<(Q, oneshot::Sender<A>)>,
}

/// Why a request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// As many requests wait as may.
    #[error("too many requests are waiting")]
    Full,
    /// The service is stopping and takes no more.
    #[error("the service is stopping")]
    Stopping,
    /// The batch ended without an answer: it may or may not have been committed.
    #[error("the batch ended without an answer")]
    Undecided,
}

/// The other end: takes batches and answers them. Owned by one worker.
pub struct Batches<Q, A> {
    queue: mpsc::Receiver<(Q, oneshot::Sender<A>)>,
    limit: usize,
}

/// A queue for `waiting` requests, taken in batches of at most `limit`.
pub fn group_commit<Q, A>(waiting: usize, limit: usize) -> (GroupCommit<Q, A>, Batches<Q, A>) {
    let (sender, receiver) = mpsc::channel(waiting);
    (GroupCommit { queue: sender }, Batches { queue: receiver, limit })
}

impl<Q, A> GroupCommit<Q, A> {
    /// Joins the forming batch and waits for its commit. A caller who stops waiting does not take
    /// the request out of its batch.
    pub async fn submit(&self, request: Q) -> Result<A, Rejected> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send((request, answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Rejected::Full,
            mpsc::error::TrySendError::Closed(_) => Rejected::Stopping,
        })?;
        answered.await.map_err(|_| Rejected::Undecided)
    }
}

impl<Q, A> Batches<Q, A> {
    /// Commits batch after batch through `commit`, which answers each request in its place, until
    /// `stop` is cancelled and nothing waits any more.
    pub async fn run<F: Future<Output = Vec<A>>>(
        mut self,
        mut pace: Pace,
        stop: CancellationToken,
        commit: impl Fn(Vec<Q>) -> F,
    ) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                taken = self.queue.recv_many(&mut batch, self.limit) => {
                    if taken == 0 {
                        // Nobody can ask any more. Whoever runs the worker still says when it ends.
                        stop.cancelled().await;
                        return;
                    }
                }
                () = stop.cancelled() => {
                    // Whoever is in the queue is still answered; whoever comes later is refused.
                    self.queue.close();
                    continue;
                }
            }
            self.gather(&mut batch, &pace, &stop).await;
            // Whoever gave up may have asked again: what nobody waits for is not begun.
            batch.retain(|(_, waiting)| !waiting.is_closed());
            if batch.is_empty() {
                continue;
            }
            let (requests, waiting): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let begun = Instant::now();
            let answers = commit(requests).await;
            pace.took(begun.elapsed());
            debug_assert_eq!(answers.len(), waiting.len());
            for (answer, waiting) in answers.into_iter().zip(waiting) {
                // A client that went away hears nothing; its order stands.
                let _ = waiting.send(answer);
            }
        }
    }

    /// Lets more requests join the batch while the pause lasts, and as long as some come: where
    /// everybody waits for the answer there is nobody to wait for.
    async fn gather(
        &mut self,
        batch: &mut Vec<(Q, oneshot::Sender<A>)>,
        pace: &Pace,
        stop: &CancellationToken,
    ) {
        loop {
            let (rest, there) = (pace.rest(), self.queue.len());
            if rest.is_zero() || batch.len() + there >= self.limit {
                break;
            }
            let pause = tokio::time::sleep(rest.min(QUIET));
            if stop.run_until_cancelled(pause).await.is_none() || self.queue.len() == there {
                break;
            }
        }
        while batch.len() < self.limit
            && let Ok(request) = self.queue.try_recv()
        {
            batch.push(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn requests_that_meet_a_running_commit_share_the_next_one() {
        let (group, batches) = group_commit::<u32, u32>(64, 64);
        let group = Arc::new(group);
        let commits = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let stop = CancellationToken::new();
        let worker = tokio::spawn({
            let (commits, gate, stop) = (commits.clone(), gate.clone(), stop.clone());
            async move {
                batches
                    .run(Pace::first(), stop, |batch| {
                        let (commits, gate) = (commits.clone(), gate.clone());
                        async move {
                            gate.acquire().await.unwrap().forget();
                            commits.fetch_add(1, Ordering::Relaxed);
                            batch.into_iter().map(|n| n * 2).collect()
                        }
                    })
                    .await;
            }
        });
        let callers: Vec<_> = (0..10)
            .map(|n| {
                let group = group.clone();
                tokio::spawn(async move { group.submit(n).await })
            })
            .collect();
        // The first batch has been taken with whoever was there; all others form the second.
        while group.queue.capacity() != 64 - 9 && group.queue.capacity() != 64 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        for (n, caller) in callers.into_iter().enumerate() {
            assert_eq!(caller.await.unwrap(), Ok(u32::try_from(n).unwrap() * 2));
        }
        assert!(commits.load(Ordering::Relaxed) <= 2);
        stop.cancel();
        worker.await.unwrap();
        assert_eq!(group.submit(1).await, Err(Rejected::Stopping));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_begun() {
        let (group, batches) = group_commit::<u32, u32>(8, 8);
        for abandoned in [1, 2] {
            let gave_up = futures_util::FutureExt::now_or_never(group.submit(abandoned));
            assert_eq!(gave_up, None);
        }
        let stop = CancellationToken::new();
        let worker = batches.run(Pace::first(), stop.clone(), |batch| async move {
            assert_eq!(batch, [3]);
            batch
        });
        let asking = async {
            assert_eq!(group.submit(3).await, Ok(3));
            stop.cancel();
        };
        tokio::join!(worker, asking);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let (group, _batches) = group_commit::<u32, u32>(1, 1);
        let group = Arc::new(group);
        let first = tokio::spawn({
            let group = group.clone();
            async move { group.submit(1).await }
        });
        while group.queue.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(group.submit(2).await, Err(Rejected::Full));
        first.abort();
    }
}
