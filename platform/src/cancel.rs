//! One-shot cancellation shared by threads: a flag, and what has to be woken when it is raised.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Hook = Box<dyn FnOnce() + Send>;

/// Raised once, seen by all clones. Cheap to clone.
#[derive(Clone, Default)]
pub struct Cancel {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    raised: AtomicBool,
    hooks: Mutex<Vec<Hook>>,
}

impl Cancel {
    /// A fresh one, not raised.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises it and runs the hooks. Later calls do nothing.
    pub fn raise(&self) {
        let hooks = {
            let mut hooks = self.inner.hooks.lock().unwrap_or_else(PoisonError::into_inner);
            self.inner.raised.store(true, Ordering::SeqCst);
            std::mem::take(&mut *hooks)
        };
        for hook in hooks {
            hook();
        }
    }

    /// True once raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.inner.raised.load(Ordering::SeqCst)
    }

    /// Runs `hook` when it is raised, or now if it already is. Hooks must not block: shut a socket down, kill a process.
    pub fn on_raise(&self, hook: impl FnOnce() + Send + 'static) {
        let mut hooks = self.inner.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_raised() {
            drop(hooks);
            hook();
        } else {
            hooks.push(Box::new(hook));
        }
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancel").field("raised", &self.is_raised()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Cancel;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn hooks_run_once_whether_registered_before_or_after() {
        let (cancel, count) = (Cancel::new(), Arc::new(AtomicU32::new(0)));
        let hook = |count: &Arc<AtomicU32>| {
            let count = Arc::clone(count);
            move || _ = count.fetch_add(1, Ordering::SeqCst)
        };
        cancel.on_raise(hook(&count));
        assert!(!cancel.is_raised());
        cancel.raise();
        cancel.clone().raise();
        cancel.on_raise(hook(&count));
        assert!(cancel.is_raised());
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }
}
