//! Who panicked: names the operator whose user code a panic comes from, at no cost while none does.
//!
//! A [`Blame`] stands on the stack while user code runs and is forgotten afterwards. Only when the stack
//! unwinds is it dropped, and then it notes its operator. The innermost one counts.
//!
//! State that fails unwinds, too ([`fault`](tidemill_storage::state::fault)): what catches it makes the error of that
//! operator of it, in its own words.

use std::cell::Cell;

use crate::model::operator::OperatorIndex;

thread_local! {
    static BLAMED: Cell<Option<OperatorIndex>> = const { Cell::new(None) };
}

/// Stands for an operator while its user code runs.
pub struct Blame(OperatorIndex);

impl Blame {
    /// Runs user code of `operator`.
    #[inline(always)]
    pub fn on<R>(operator: OperatorIndex, code: impl FnOnce() -> R) -> R {
        let blame = Self(operator);
        let result = code();
        std::mem::forget(blame);
        result
    }

    /// Who was unwound through since the last call, innermost first.
    pub fn take() -> Option<OperatorIndex> {
        BLAMED.take()
    }
}

impl Drop for Blame {
    #[cold]
    fn drop(&mut self) {
        if BLAMED.get().is_none() {
            BLAMED.set(Some(self.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_operator_is_blamed_and_only_when_it_panics() {
        assert_eq!(Blame::on(1, || Blame::on(2, || 3)), 3);
        assert_eq!(Blame::take(), None);
        let outcome =
            std::panic::catch_unwind(|| Blame::on(1, || Blame::on(2, || panic!("expected by the test"))));
        assert!(outcome.is_err());
        assert_eq!(Blame::take(), Some(2));
        assert_eq!(Blame::take(), None);
    }
}
