//! Threads for work that blocks: made when needed, gone when idle, never more than a named number.

use super::oneshot::oneshot;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a thread waits for work before it ends: long enough to bridge the pauses of a conversation's tools.
const IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// A pool of threads. Clones share it.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    threads_max: usize,
    stack_bytes: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

/// How deep a pool is in its work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Jobs that wait for a thread.
    pub jobs: u64,
    /// Threads, at work or idle.
    pub threads: u64,
}

impl Pool {
    /// A pool of at most `threads_max` threads named `name`, with stacks of so many bytes. None is started yet.
    #[must_use]
    pub fn new(name: &'static str, threads_max: usize, stack_bytes: usize) -> Self {
        let (queue, wake) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { name, threads_max, stack_bytes, queue, wake }) }
    }

    /// Runs `job` on one of the threads, as soon as one is free. False, and the job dropped, only if there is no thread and
    /// none can be had.
    pub fn spawn(&self, job: impl FnOnce() + Send + 'static) -> bool {
        self.enqueue(Box::new(job))
    }

    fn enqueue(&self, job: Job) -> bool {
        let mut queue = self.shared.lock();
        queue.jobs.push_back(job);
        if queue.idle >= queue.jobs.len() {
            self.shared.wake.notify_one();
        } else if queue.threads < self.shared.threads_max {
            queue.threads += 1;
            drop(queue);
            return self.start_thread();
        }
        true
    }

    /// Runs `job` on one of the threads and waits for its value without blocking this one. `None` only if the job's
    /// thread could not be had at all.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (giver, waiter) = oneshot();
        self.spawn(move || giver.give(job()));
        waiter.wait().await
    }

    /// What waits and who works.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let queue = self.shared.lock();
        Depth { jobs: queue.jobs.len() as u64, threads: queue.threads as u64 }
    }

    fn start_thread(&self) -> bool {
        let shared = Arc::clone(&self.shared);
        let builder = thread::Builder::new().name(self.shared.name.to_owned()).stack_size(self.shared.stack_bytes);
        if builder.spawn(move || shared.work()).is_ok() {
            return true;
        }
        let mut queue = self.shared.lock();
        queue.threads -= 1;
        // With other threads the job waits for one of them. With none nobody would ever come.
        if queue.threads == 0 {
            queue.jobs.clear();
        }
        queue.threads > 0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            while let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job();
                queue = self.lock();
            }
            queue.idle += 1;
            let (guard, wait) = self.wake.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            queue.idle -= 1;
            if wait.timed_out() && queue.jobs.is_empty() {
                queue.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pool;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn work_is_done_by_no_more_threads_than_allowed() {
        let pool = Pool::new("test", 3, 256 * 1024);
        let (now, most, done) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), smol::channel::unbounded());
        for _ in 0..50 {
            let (now, most, done) = (Arc::clone(&now), Arc::clone(&most), done.0.clone());
            pool.spawn(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(1));
                now.fetch_sub(1, Ordering::SeqCst);
                done.try_send(()).expect("unbounded");
            });
        }
        smol::block_on(async {
            for _ in 0..50 {
                done.1.recv().await.expect("every job runs");
            }
            assert_eq!(pool.run(|| 7).await, Some(7));
        });
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    }
}
