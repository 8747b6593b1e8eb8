//! Checks of what a job's status says: it may be written by anybody's controller, and clients rely on it.

use std::collections::BTreeSet;

use super::batch::{interval, is_indexed, total_of};
use super::node::Node;
use super::workloads::counts;
use crate::field::{ErrorList, FieldError};
use crate::time;

/// A job as its status tells of it.
struct Outcome<'a> {
    status: Node<'a>,
    complete: bool,
    failed: bool,
    failing: bool,
    succeeding: bool,
}

impl<'a> Outcome<'a> {
    fn of(job: &Node<'a>) -> Self {
        let status = job.child("status");
        let conditions = status.child("conditions");
        let holds = |kind: &str| {
            conditions.items().any(|c| c.child("type").text() == kind && c.child("status").text() == "True")
        };
        Outcome {
            complete: holds("Complete"),
            failed: holds("Failed"),
            failing: holds("FailureTarget"),
            succeeding: holds("SuccessCriteriaMet"),
            status,
        }
    }

    fn finished(&self) -> bool {
        self.complete || self.failed
    }

    fn count(&self, member: &str) -> i64 {
        self.status.child(member).integer().unwrap_or_default()
    }
}

/// What a status may say. Most of it is asked only of what changed, so that a status that is wrong elsewhere can still be mended.
pub(super) fn check(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let spec = new.child("spec");
    let (now, before) = (Outcome::of(new), Outcome::of(old));
    let status = &now.status;
    let changed = |member: &str| status.child(member).value != before.status.child(member).value;
    counts(status, &["active", "succeeded", "failed", "ready", "terminating"], errors);
    uncounted(&status.child("uncountedTerminatedPods"), errors);
    let finish = now.finished() != before.finished();
    let complete = now.complete != before.complete;
    conditions(&now, &before, &spec, errors);

    let (start, end) = (status.child("startTime"), status.child("completionTime"));
    if (complete || changed("completionTime")) && end.is_set() != now.complete {
        errors.push(match end.is_set() {
            true => FieldError::invalid(
                &end.path,
                end.text(),
                "cannot set completionTime when there is no Complete=True condition",
            ),
            false => FieldError::required(&end.path, "completionTime is required for Complete jobs"),
        });
    }
    if (changed("startTime") || changed("completionTime"))
        && let (Some(first), Some(last)) = (time::parse(start.text()), time::parse(end.text()))
        && last < first
    {
        let message = "completionTime cannot be set before startTime";
        errors.push(FieldError::invalid(&end.path, end.text(), message));
    }
    let nothing_to_do = spec.child("suspend").is_true() && spec.child("completions").integer() == Some(0);
    if (finish || changed("startTime")) && !nothing_to_do && now.finished() && !start.is_set() {
        errors.push(FieldError::required(&start.path, "startTime is required for finished job"));
    }
    let pods = status.child("uncountedTerminatedPods");
    for (member, node) in [("active", status.child("active")), ("terminating", status.child("terminating"))] {
        if (finish || changed(member)) && now.finished() && now.count(member) > 0 {
            let message = format!("{member}>0 is invalid for finished job");
            errors.push(FieldError::invalid(&node.path, node.value.clone(), message));
        }
    }
    let waiting = ["succeeded", "failed"].iter().any(|list| !pods.child(list).is_empty());
    if (finish || changed("uncountedTerminatedPods")) && now.finished() && waiting {
        let message = "uncountedTerminatedPods needs to be empty for finished job";
        errors.push(FieldError::invalid(&pods.path, pods.value.clone(), message));
    }
    if (changed("ready") || changed("active")) && now.count("ready") > now.count("active") {
        let message = "cannot set more ready pods than active";
        errors.push(FieldError::invalid(&status.path.child("ready"), now.count("ready"), message));
    }
    indexes(&now, &before, &spec, errors);

    let elastic = is_indexed(&spec) && spec.child("completions").value == spec.child("parallelism").value;
    for (member, may_fall) in [("failed", false), ("succeeded", elastic)] {
        if !may_fall && now.count(member) < before.count(member) {
            let message = format!("cannot decrease the {member} counter");
            errors.push(FieldError::invalid(&status.path.child(member), now.count(member), message));
        }
    }
    if end.is_set() && before.status.child("completionTime").is_set() && changed("completionTime") {
        errors.push(FieldError::invalid(&end.path, end.text(), "completionTime cannot be mutated"));
    }
    if before.status.child("startTime").is_set() && changed("startTime") && !spec.child("suspend").is_true() {
        errors.push(FieldError::required(&start.path, "startTime cannot be removed for unsuspended job"));
    }
}

fn uncounted(pods: &Node<'_>, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for uid in pods.child(list).items() {
            if uid.text().is_empty() {
                errors.push(FieldError::invalid(&uid.path, "", "must not be empty"));
            } else if !seen.insert(uid.text()) {
                errors.push(FieldError::duplicate(&uid.path, uid.text()));
            }
        }
    }
}

/// Which conditions go together, and which may be taken back.
fn conditions(now: &Outcome<'_>, before: &Outcome<'_>, spec: &Node<'_>, errors: &mut ErrorList) {
    let complete = now.complete != before.complete;
    let failed = now.failed != before.failed;
    let failing = now.failing != before.failing;
    let succeeding = now.succeeding != before.succeeding;
    let rules = [
        ((complete || failed) && now.complete && now.failed, "cannot set Complete=True and Failed=true conditions"),
        (
            (complete || failing) && now.complete && now.failing,
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            (failed || failing) && now.failed && !now.failing,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            (complete || succeeding) && now.complete && !now.succeeding,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (now.succeeding && now.failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (now.succeeding && now.failing, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
        (
            spec.child("successPolicy").is_set() && !now.succeeding && now.complete,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
        (before.failed && !now.failed, "cannot disable the terminal Failed=True condition"),
        (before.complete && !now.complete, "cannot disable the terminal Complete=True condition"),
        (before.failing && !now.failing, "cannot disable the terminal FailureTarget=True condition"),
        (before.succeeding && !now.succeeding, "cannot disable the SuccessCriteriaMet=True condition"),
        (
            before.complete && !before.succeeding && now.succeeding,
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
        ),
    ];
    let path = now.status.path.child("conditions");
    let broken = rules.iter().filter(|(broken, _)| *broken);
    errors.extend(broken.map(|(_, message)| FieldError::invalid_as_a_whole(&path, *message)));
}

fn indexes(now: &Outcome<'_>, before: &Outcome<'_>, spec: &Node<'_>, errors: &mut ErrorList) {
    let (completed, failed) = (now.status.child("completedIndexes"), now.status.child("failedIndexes"));
    let completed_changed = completed.value != before.status.child("completedIndexes").value;
    let failed_changed = failed.value != before.status.child("failedIndexes").value;
    let per_index = spec.child("backoffLimitPerIndex").is_set();
    let completions = spec.child("completions").integer();
    let readable = |node: &Node<'_>, what: &str, errors: &mut ErrorList| {
        if let Some(Err(why)) = completions.map(|completions| total_of(node.text(), completions)) {
            let message = format!("error parsing {what}: {why}");
            errors.push(FieldError::invalid(&node.path, node.text(), message));
        }
    };
    if completed_changed {
        readable(&completed, "completedIndexes", errors);
        if !completed.is_empty() && !is_indexed(spec) {
            let message = "cannot set non-empty completedIndexes when non-indexed completion mode";
            errors.push(FieldError::invalid(&completed.path, completed.text(), message));
        }
    }
    if failed_changed && failed.is_set() {
        if per_index {
            readable(&failed, "failedIndexes", errors);
        } else {
            let message = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            errors.push(FieldError::invalid(&failed.path, failed.text(), message));
        }
    }
    if (completed_changed || failed_changed)
        && let Some(index) = completions.and_then(|completions| overlap(completed.text(), failed.text(), completions))
    {
        let message = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.push(FieldError::invalid(&failed.path, failed.text(), message));
    }
}

/// The first index that is in both lists.
fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    // What cannot be read is reported where the list itself is checked.
    let read = |text: &str| text.split(',').filter_map(|part| interval(part, completions).ok()).collect::<Vec<_>>();
    let (completed, failed) = (read(completed), read(failed));
    let (mut completed, mut failed) = (completed.iter().peekable(), failed.iter().peekable());
    while let (Some((c_first, c_last)), Some((f_first, f_last))) = (completed.peek(), failed.peek()) {
        if c_first <= f_last && f_first <= c_last {
            return Some(*c_first.max(f_first));
        }
        if c_first <= f_first {
            completed.next()
        } else {
            failed.next()
        };
    }
    None
}
