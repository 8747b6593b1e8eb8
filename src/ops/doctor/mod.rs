//! What stands in the way of clusters on this machine: each driver as its probe finds it, and what all of them need of the
//! host.

mod host;

use serde_json::{Value, json};

use crate::drivers::{self, Probed, Problem};
use crate::home::Home;
use crate::reason::{DRV_NOT_DETECTED, Reason};

/// What was found.
pub struct Report {
    /// The one that is preferred first.
    pub drivers: Vec<Probed>,
    pub host: Vec<Finding>,
}

/// How one thing is.
#[derive(Debug)]
pub struct Finding {
    /// Of the row in the table of checks.
    pub name: &'static str,
    pub verdict: Verdict,
}

#[derive(Debug)]
pub enum Verdict {
    /// What is there.
    Good(String),
    /// Clusters start, and what is said may go wrong later.
    Warning(Problem),
    /// Clusters cannot start.
    Failed(Problem),
}

impl Verdict {
    fn warning(reason: &'static Reason, why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Warning(Problem { reason, why: why.into(), advice: advice.into() })
    }

    fn failed(reason: &'static Reason, why: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = advice.into();
        let advice = if advice.is_empty() { reason.advice.to_owned() } else { advice };
        Self::Failed(Problem { reason, why: why.into(), advice })
    }

    /// One word, for people and scripts.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Good(_) => "ok",
            Verdict::Warning(_) => "warning",
            Verdict::Failed(_) => "failed",
        }
    }

    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Verdict::Good(_) => None,
            Verdict::Warning(problem) | Verdict::Failed(problem) => Some(problem),
        }
    }
}

/// Looks at everything; bounded by the drivers' probes.
pub async fn examine(home: &Home) -> Report {
    let (drivers, host) = tokio::join!(drivers::probe_all(home), host::examine(home));
    Report { drivers, host }
}

impl Report {
    /// The driver that `start` takes where none is named.
    pub fn chosen(&self) -> Option<&'static str> {
        self.drivers.iter().find(|probed| probed.health.is_healthy()).map(|probed| probed.row.name)
    }

    /// 0 if clusters can start here; else the code of the reason why not.
    pub fn exit_code(&self) -> u8 {
        if self.chosen().is_none() {
            return DRV_NOT_DETECTED.exit_code;
        }
        let failed = self.host.iter().find_map(|finding| match &finding.verdict {
            Verdict::Failed(problem) => Some(problem.reason.exit_code),
            _ => None,
        });
        failed.unwrap_or(0)
    }

    pub fn json(&self) -> Value {
        let told = |problem: Option<&Problem>| match problem {
            Some(Problem { reason, why, advice }) => json!({ "reason": reason.id, "why": why, "advice": advice }),
            None => Value::Null,
        };
        let chosen = self.chosen();
        let drivers: Vec<Value> = self
            .drivers
            .iter()
            .map(|Probed { row, health }| {
                json!({
                    "name": row.name, "what": row.what, "installed": health.installed, "healthy": health.is_healthy(),
                    "chosen": chosen == Some(row.name), "about": health.about, "problem": told(health.problem.as_ref()),
                    "link": row.link,
                })
            })
            .collect();
        let host: Vec<Value> = self
            .host
            .iter()
            .map(|Finding { name, verdict }| {
                let about = if let Verdict::Good(about) = verdict { about.as_str() } else { "" };
                json!({ "name": name, "state": verdict.word(), "about": about, "problem": told(verdict.problem()) })
            })
            .collect();
        json!({ "drivers": drivers, "host": host })
    }
}
