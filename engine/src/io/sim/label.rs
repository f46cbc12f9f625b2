//! Says for what an operation is submitted, where its path alone cannot tell.
//!
//! The shard knows (an extent and a destaged block go to the same file) and the disk is told nothing by the seam itself;
//! so the label lies beside the call, on the thread that makes it.

use std::cell::Cell;

use super::StepKind;

thread_local! {
    static LABEL: Cell<Option<StepKind>> = const { Cell::new(None) };
}

/// Labels the operations of this thread as long as it lives.
#[derive(Debug)]
pub struct StepLabel(Option<StepKind>);

impl StepLabel {
    /// Operations from now on are of this kind; `None` leaves what was said before.
    #[must_use]
    pub fn begin(kind: Option<StepKind>) -> Self {
        Self(LABEL.replace(kind.or(LABEL.get())))
    }

    /// The label of this thread.
    pub(super) fn current() -> Option<&'static str> {
        LABEL.get().map(StepKind::name)
    }
}

impl Drop for StepLabel {
    fn drop(&mut self) {
        LABEL.set(self.0);
    }
}
