//! Sends a pod's status to the API: one request at a time, the newest status always, only what changed.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kminik_base::backoff::Backoff;
use kminik_client::{is_conflict, is_invalid, is_not_found, revision_of};
use kube::api::{Api, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::status::OWN_CONDITIONS;
use super::view::PodView;

/// Writes the status of one pod.
pub(crate) struct StatusWriter {
    wanted: watch::Sender<Wanted>,
    done: watch::Receiver<u64>,
    /// The pod as the API has it, by watch or by the answer to the last patch.
    latest: Arc<Mutex<Arc<Pod>>>,
}

#[derive(Clone, Default)]
struct Wanted {
    number: u64,
    status: PodStatus,
}

impl StatusWriter {
    /// `stop` ends it without waiting for what is not sent.
    pub(crate) fn start(client: kube::Client, view: &PodView, stop: CancellationToken) -> Self {
        let (wanted, wants) = watch::channel(Wanted::default());
        let (finished, done) = watch::channel(0);
        let latest = Arc::new(Mutex::new(view.pod.clone()));
        let writer = Writer {
            pods: Api::namespaced(client, &view.namespace),
            name: view.name.clone(),
            uid: view.uid.clone(),
            latest: latest.clone(),
        };
        tokio::spawn(async move { stop.run_until_cancelled(writer.run(wants, finished)).await });
        Self { wanted, done, latest }
    }

    /// The pod as read by the watch.
    pub(crate) fn observe(&self, pod: &Arc<Pod>) {
        let mut latest = self.latest.lock();
        if revision_of(&pod.metadata) >= revision_of(&latest.metadata) {
            *latest = pod.clone();
        }
    }

    /// The status to report from now on; returns the number to wait for.
    pub(crate) fn set(&self, status: &PodStatus) -> u64 {
        let latest = self.latest.lock().clone();
        let reported = latest.status.clone().unwrap_or_default();
        let mut number = 0;
        self.wanted.send_if_modified(|wanted| {
            let news = wanted.number == 0 || wanted.status != *status || patch(&reported, status).is_some();
            if news {
                wanted.number += 1;
                wanted.status = status.clone();
            }
            number = wanted.number;
            news
        });
        number
    }

    /// Waits until the status of that number, or a newer one, has been sent or need not be.
    pub(crate) fn flushed(&self, number: u64) -> impl Future<Output = ()> + Send + use<> {
        let mut done = self.done.clone();
        async move {
            // An error means the writer has ended, and nothing more will be sent.
            let _ = done.wait_for(|sent| *sent >= number).await;
        }
    }
}

struct Writer {
    pods: Api<Pod>,
    name: String,
    uid: String,
    latest: Arc<Mutex<Arc<Pod>>>,
}

impl Writer {
    async fn run(self, mut wants: watch::Receiver<Wanted>, finished: watch::Sender<u64>) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
        loop {
            let wanted = wants.borrow_and_update().clone();
            if wanted.number > 0 {
                match self.send(&wanted.status).await {
                    Ok(()) => backoff.reset(),
                    Err(error) => {
                        tracing::warn!(name = self.name, %error, "pod status not sent");
                        tokio::select! {
                            () = tokio::time::sleep(backoff.next_delay()) => {}
                            _ = wants.changed() => {}
                        }
                        continue;
                    }
                }
                finished.send_replace(wanted.number);
            }
            if wants.changed().await.is_err() {
                return;
            }
        }
    }

    async fn send(&self, status: &PodStatus) -> Result<(), kube::Error> {
        let latest = self.latest.lock().clone();
        let Some(change) = patch(&latest.status.clone().unwrap_or_default(), status) else { return Ok(()) };
        let body = json!({"metadata": {"uid": self.uid}, "status": change});
        match self.pods.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(body)).await {
            Ok(pod) => {
                let mut latest = self.latest.lock();
                if revision_of(&pod.metadata) >= revision_of(&latest.metadata) {
                    *latest = Arc::new(pod);
                }
                Ok(())
            }
            // The pod, or this pod under its name, is gone: nobody is left to tell.
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) if is_invalid(&error) => {
                tracing::error!(name = self.name, %error, "pod status refused");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// The strategic merge patch from a reported status to the wanted one; `None` if they say the same. Fields and conditions
/// that are not the kubelet's are left alone.
pub(crate) fn patch(reported: &PodStatus, wanted: &PodStatus) -> Option<Value> {
    const OWN: [&str; 15] = [
        "phase",
        "reason",
        "message",
        "startTime",
        "qosClass",
        "observedGeneration",
        "hostIP",
        "hostIPs",
        "podIP",
        "podIPs",
        "initContainerStatuses",
        "containerStatuses",
        "ephemeralContainerStatuses",
        "conditions",
        "resources",
    ];
    let (old, new) = (fields(reported), fields(wanted));
    let mut out = Map::new();
    for key in OWN {
        let (before, after) = (old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null));
        match key {
            _ if before == after => {}
            "conditions" => {
                let changed = changed_conditions(before, after);
                if !changed.is_empty() {
                    out.insert(key.into(), Value::Array(changed));
                }
            }
            "podIPs" | "hostIPs" => {
                out.insert(key.into(), replaced_ips(before, after));
            }
            // Always given at creation, and not taken back by a rejection.
            "qosClass" | "observedGeneration" | "resources" if after.is_null() => {}
            _ => {
                out.insert(key.into(), after.clone());
            }
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        // A status always is an object.
        _ => Map::new(),
    }
}

fn changed_conditions(before: &Value, after: &Value) -> Vec<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (before, after) = (list(before), list(after));
    let of = |list: &[Value], kind: &Value| list.iter().find(|c| &c["type"] == kind).cloned();
    let mut out = Vec::new();
    for condition in &after {
        let kind = &condition["type"];
        if !kind.as_str().is_some_and(|kind| OWN_CONDITIONS.contains(&kind)) {
            continue;
        }
        let old = of(&before, kind);
        if old.as_ref() == Some(condition) {
            continue;
        }
        let mut change = condition.clone();
        // A field that was there and is not any more has to be taken away in words.
        for field in ["reason", "message"] {
            if change.get(field).is_none() && old.as_ref().is_some_and(|old| old.get(field).is_some()) {
                change[field] = Value::Null;
            }
        }
        out.push(change);
    }
    out
}

/// Lists merged by `ip`: what is no longer there is deleted in words.
fn replaced_ips(before: &Value, after: &Value) -> Value {
    let ips = |value: &Value| -> Vec<Value> {
        value.as_array().into_iter().flatten().map(|entry| entry["ip"].clone()).collect()
    };
    let (old, new) = (ips(before), ips(after));
    let mut out: Vec<Value> = new.iter().map(|ip| json!({ "ip": ip })).collect();
    out.extend(old.iter().filter(|ip| !new.contains(ip)).map(|ip| json!({"ip": ip, "$patch": "delete"})));
    Value::Array(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_changed_and_nothing_foreign() {
        let old =
            status(json!({"phase": "Pending", "podIPs": [{"ip": "1.1.1.1"}], "message": "m", "nominatedNodeName": "x",
            "conditions": [{"type": "Ready", "status": "False", "reason": "R"}, {"type": "Mine", "status": "True"}]}));
        let new = status(json!({"phase": "Running", "podIPs": [{"ip": "2.2.2.2"}],
            "conditions": [{"type": "Ready", "status": "True"}]}));
        let change = patch(&old, &new).unwrap();
        assert_eq!(
            change,
            json!({"phase": "Running", "message": null, "podIPs": [{"ip": "2.2.2.2"}, {"ip": "1.1.1.1", "$patch": "delete"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null}]})
        );
        assert_eq!(patch(&new, &new), None);
    }
}
