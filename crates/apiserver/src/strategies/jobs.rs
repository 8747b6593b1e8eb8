//! Jobs: a job that names no pods of its own gets a selector and labels that no other job has.

use kminik_meta::Object;

use crate::registry::strategy::{Strategy, StrategyContext, default_prepare_create};

const UID: &str = "batch.kubernetes.io/controller-uid";

pub(crate) struct Jobs;

impl Strategy for Jobs {
    fn prepare_create(&self, ctx: &StrategyContext<'_>, job: &mut Object) {
        default_prepare_create(ctx, job);
        if job.bool(&["spec", "manualSelector"]) != Some(true) {
            generate_selector(job);
        }
    }
}

/// Adds the labels by which the pods are known, under today's names and the older ones, and selects by the job's uid. What a client
/// wrote stays, and is refused by validation where it is something else.
fn generate_selector(job: &mut Object) {
    let (name, uid) = (job.name().to_owned(), job.uid().to_owned());
    for (key, value) in
        [("job-name", &name), ("batch.kubernetes.io/job-name", &name), ("controller-uid", &uid), (UID, &uid)]
    {
        let path = ["spec", "template", "metadata", "labels", key];
        if job.get(&path).is_none() {
            job.set(&path, value.as_str());
        }
    }
    let path = ["spec", "selector", "matchLabels", UID];
    if job.get(&path).is_none() {
        job.set(&path, uid);
    }
}
