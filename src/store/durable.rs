//! The law as a type: decide → append → fsync → act → publish.

/// Something that may be acted on, because the events that cause it are on disk. Only a log can make one: the
/// constructor is private to the store. Running an effect and publishing an event take their argument in this form, so
/// code that acts first does not build:
///
/// ```compile_fail,E0423
/// use duragent::store::Durable;
/// let forged = Durable(7);
/// ```
///
/// ```compile_fail,E0624
/// use duragent::store::Durable;
/// let forged = Durable::mint(7);
/// ```
///
/// ```compile_fail,E0308
/// use duragent::session::Runner;
/// use duragent_core::session::{Effect, State};
/// fn act_before_it_is_written(runner: &mut Runner, effect: Effect, state: &State) {
///     runner.run(effect, state);
/// }
/// ```
///
/// while the same with an effect that a commit gave back does:
///
/// ```
/// use duragent::session::Runner;
/// use duragent::store::Durable;
/// use duragent_core::session::{Effect, State};
/// fn act(runner: &mut Runner, effect: Durable<Effect>, state: &State) {
///     runner.run(effect, state);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a durable effect that is not run is forgotten until the next start"]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    /// Says that `value` is on disk. Called after a successful sync and nowhere else.
    pub(in crate::store) fn mint(value: T) -> Self {
        Self(value)
    }

    /// The value.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// The value, for the one who acts on it.
    pub fn into_inner(self) -> T {
        self.0
    }
}
