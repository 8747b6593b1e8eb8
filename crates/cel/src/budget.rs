//! How much evaluation may cost.

use crate::error::EvalError;

/// The cost one call may have: about 0.1 s.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// The cost all rules of an object, or all expressions of a policy's binding, may have together: about 1 s.
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// The cost all match conditions of a webhook or policy may have together.
pub const MATCH_CONDITIONS_BUDGET: u64 = RUNTIME_BUDGET / 4;
/// The cost that one rule of a custom resource definition may be estimated at.
pub const PER_EXPRESSION_ESTIMATE: u64 = 10_000_000;
/// The cost that all rules of a custom resource definition may be estimated at.
pub const PER_CRD_ESTIMATE: u64 = 100_000_000;

/// What a call may still spend.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    limit: u64,
    spent: u64,
}

impl Default for Budget {
    /// [`PER_CALL_LIMIT`].
    fn default() -> Self {
        Budget::new(PER_CALL_LIMIT)
    }
}

impl Budget {
    /// A call may spend `limit`.
    pub fn new(limit: u64) -> Self {
        Budget { limit, spent: 0 }
    }

    /// What has been spent.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    pub(crate) fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit { Err(EvalError::CostLimit) } else { Ok(()) }
    }
}
