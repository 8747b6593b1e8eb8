//! Registration and status of the Node: patches of exactly the fields that are the kubelet's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeSpec, ObjectReference, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kminik_base::backoff::Backoff;
use kminik_client::{EventType, Informer, is_already_exists, is_not_found};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::images::ImageService;
use crate::node_context::NodeContext;

/// The status is sent at least this often, and at once when it changes.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// Images named in the status, the largest first.
const MAX_IMAGES: usize = 50;
const MAX_NAMES: usize = 5;

/// What has been told of the Node since this process runs.
#[derive(Default)]
struct Told {
    started: bool,
    unschedulable: Option<bool>,
    /// The status, and when.
    sent: Option<(Timestamp, Value)>,
}

/// Keeps one Node.
pub(crate) struct NodeStatus {
    node: Arc<NodeContext>,
    images: Arc<dyn ImageService>,
    own: Informer<Node>,
    nodes: Api<Node>,
}

impl NodeStatus {
    pub(crate) fn new(node: Arc<NodeContext>, images: Arc<dyn ImageService>, own: Informer<Node>) -> Self {
        let nodes = Api::all(node.client.clone());
        Self { node, images, own, nodes }
    }

    /// Registers, then reports until told to stop; a Node that somebody deletes is registered again.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let changed = Arc::new(Notify::new());
        let bell = changed.clone();
        let _subscription = self.own.subscribe(move |_| bell.notify_one());
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(7));
        let mut told = Told::default();
        loop {
            let pause = match self.sync(&mut told).await {
                Ok(()) => {
                    backoff.reset();
                    HEARTBEAT
                }
                Err(error) => {
                    tracing::debug!(%error, "node status not sent");
                    backoff.next_delay()
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn sync(&self, told: &mut Told) -> Result<(), kube::Error> {
        let name = &self.node.config.node_name;
        let found = match self.nodes.get_opt(name).await? {
            Some(found) => found,
            None => match self.nodes.create(&PostParams::default(), &self.registration()).await {
                Ok(node) => {
                    told.sent = None;
                    node
                }
                Err(error) if is_already_exists(&error) => self.nodes.get(name).await?,
                Err(error) => return Err(error),
            },
        };
        if !std::mem::replace(&mut told.started, true) {
            self.event(EventType::Normal, "Starting", "Starting kubelet.");
        }
        let unschedulable = found.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        if told.unschedulable.replace(unschedulable).is_some_and(|before| before != unschedulable) {
            self.is_now(if unschedulable { "NodeNotSchedulable" } else { "NodeSchedulable" });
        }
        self.reconcile_labels(&found).await?;
        let now = Timestamp::now();
        let wanted = self.status(&found, now).await;
        let reported = found.status.as_ref().and_then(|s| serde_json::to_value(s).ok()).unwrap_or(Value::Null);
        let due = told.sent.as_ref().is_none_or(|(at, _)| crate::pods::backoff::between(*at, now) >= HEARTBEAT);
        if !due && !differs(&reported, &wanted) {
            return Ok(());
        }
        let patch = json!({ "status": wanted });
        match self.nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => {
                self.tell_changes(&reported, &wanted);
                told.sent = Some((now, wanted));
                Ok(())
            }
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Events of the conditions that are now others, and of a machine that has been started anew.
    fn tell_changes(&self, before: &Value, now: &Value) {
        changed_conditions(before, now).for_each(|reason| self.is_now(reason));
        let (old, new) = (&before["nodeInfo"]["bootID"], &now["nodeInfo"]["bootID"]);
        if let (Some(old), Some(new)) = (old.as_str(), new.as_str())
            && !old.is_empty()
            && old != new
        {
            let message = format!("Node {} has been rebooted, boot id: {new}", self.node.config.node_name);
            self.event(EventType::Warning, "Rebooted", &message);
        }
    }

    fn is_now(&self, reason: &str) {
        let message = format!("Node {} status is now: {reason}", self.node.config.node_name);
        self.event(EventType::Normal, reason, &message);
    }

    /// About the node; upstream's kubelet gives its name for its uid, and `kubectl describe` looks for that.
    fn event(&self, event_type: EventType, reason: &str, message: &str) {
        let name = Some(self.node.config.node_name.clone());
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            uid: name.clone(),
            name,
            ..ObjectReference::default()
        };
        self.node.recorder.event(about, event_type, reason, message);
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let arch = architecture();
        let mut labels = self.node.config.node_labels.clone();
        let own = [
            ("kubernetes.io/hostname", self.node.config.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch),
        ];
        labels.extend(own.map(|(key, value)| (key.to_string(), value.to_string())));
        labels
    }

    fn registration(&self) -> Node {
        let config = &self.node.config;
        let taints = config.node_taints.iter().map(|(key, value, effect)| Taint {
            key: key.clone(),
            value: Some(value.clone()).filter(|v| !v.is_empty()),
            effect: effect.clone(),
            time_added: None,
        });
        let taints: Vec<Taint> = taints.collect();
        Node {
            metadata: ObjectMeta {
                name: Some(config.node_name.clone()),
                labels: Some(self.labels()),
                annotations: Some(BTreeMap::from([(
                    "volumes.kubernetes.io/controller-managed-attach-detach".into(),
                    "true".into(),
                )])),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                provider_id: Some(config.provider_id.clone()).filter(|id| !id.is_empty()),
                taints: (!taints.is_empty()).then_some(taints),
                ..NodeSpec::default()
            }),
            status: None,
        }
    }

    /// The labels that say what the node is are the kubelet's, also on a Node that was there before.
    async fn reconcile_labels(&self, found: &Node) -> Result<(), kube::Error> {
        let present = found.metadata.labels.clone().unwrap_or_default();
        let missing: BTreeMap<_, _> =
            self.labels().into_iter().filter(|(key, value)| present.get(key) != Some(value)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let patch = json!({"metadata": {"labels": missing}});
        self.nodes.patch(&self.node.config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    async fn status(&self, found: &Node, now: Timestamp) -> Value {
        let config = &self.node.config;
        let mut addresses: Vec<Value> =
            config.node_ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()})).collect();
        addresses.push(json!({"type": "Hostname", "address": config.node_name}));
        let capacity = self.node.capacity;
        let amounts = json!({
            "cpu": kminik_meta::Quantity::from_milli(i64::try_from(capacity.milli_cpu).unwrap_or(i64::MAX)).to_string(),
            "memory": format!("{}Ki", capacity.memory_bytes / 1024),
            "ephemeral-storage": format!("{}Ki", capacity.ephemeral_storage_bytes / 1024),
            "hugepages-1Gi": "0",
            "hugepages-2Mi": "0",
            "pods": config.max_pods.to_string(),
        });
        json!({
            "addresses": addresses,
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": conditions(found, now),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
            "nodeInfo": self.node_info(),
            "images": self.image_list().await,
            "runtimeHandlers": [{"name": "", "features": {"recursiveReadOnlyMounts": true, "userNamespaces": false}}],
            "features": {"supplementalGroupsPolicy": true},
        })
    }

    fn node_info(&self) -> Value {
        let read = |path: &str| std::fs::read_to_string(path).map(|t| t.trim().to_string()).unwrap_or_default();
        let config = &self.node.config;
        json!({
            "machineID": read("/etc/machine-id"),
            "systemUUID": read("/sys/class/dmi/id/product_uuid"),
            "bootID": read("/proc/sys/kernel/random/boot_id"),
            "kernelVersion": read("/proc/sys/kernel/osrelease"),
            "osImage": os_image(&read("/etc/os-release")),
            "containerRuntimeVersion": format!("kminik://{}", config.runtime_version),
            "kubeletVersion": config.version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture(),
            "swap": {"capacity": 0},
        })
    }

    async fn image_list(&self) -> Vec<Value> {
        let mut images = match self.images.list().await {
            Ok(images) => images,
            Err(error) => {
                tracing::warn!(%error, "images not listed");
                Vec::new()
            }
        };
        images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
        let entry = |image: &crate::images::ImageSummary| {
            let names: Vec<&String> = image.repo_digests.iter().chain(&image.repo_tags).take(MAX_NAMES).collect();
            json!({"names": names, "sizeBytes": image.size_bytes})
        };
        images.iter().take(MAX_IMAGES).map(entry).collect()
    }
}

/// Conditions with upstream's reasons; the time of transition is kept as long as the status is. A node is ready when its
/// pods can have addresses.
fn conditions(found: &Node, now: Timestamp) -> Vec<Value> {
    let range = found.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref());
    let no_range = "container runtime network not ready: the node has no podCIDR";
    let ready = match range {
        Some(_) => ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        None => ("Ready", "False", "KubeletNotReady", no_range),
    };
    let wanted = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ready,
    ];
    let present = found.status.as_ref().and_then(|s| s.conditions.as_ref());
    let entry = |(type_, status, reason, message): (&str, &str, &str, &str)| {
        let before = present.and_then(|list| list.iter().find(|c| c.type_ == type_ && c.status == status));
        let since = before.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(now));
        json!({"type": type_, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": Time(now), "lastTransitionTime": since})
    };
    wanted.into_iter().map(entry).collect()
}

/// Reasons of the events that upstream tells of conditions which change: none of a node that is not ready yet.
fn changed_conditions<'a>(before: &'a Value, now: &'a Value) -> impl Iterator<Item = &'static str> + 'a {
    let status = |of: &Value, kind: &str| {
        let conditions = of["conditions"].as_array().into_iter().flatten();
        conditions.filter(|c| c["type"] == kind).find_map(|c| c["status"].as_str().map(str::to_owned))
    };
    let reason = move |kind: &str| {
        let (old, new) = (status(before, kind), status(now, kind)?);
        if old.as_ref() == Some(&new) {
            return None;
        }
        Some(match (kind, new.as_str()) {
            ("MemoryPressure", "False") => "NodeHasSufficientMemory",
            ("MemoryPressure", "True") => "NodeHasInsufficientMemory",
            ("DiskPressure", "False") => "NodeHasNoDiskPressure",
            ("DiskPressure", "True") => "NodeHasDiskPressure",
            ("PIDPressure", "False") => "NodeHasSufficientPID",
            ("PIDPressure", "True") => "NodeHasInsufficientPID",
            ("Ready", "True") => "NodeReady",
            ("Ready", "False") if old.is_some() => "NodeNotReady",
            _ => return None,
        })
    };
    ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"].into_iter().filter_map(reason)
}

/// Whether the API lacks something that is wanted; heartbeat times, and fields of others, do not count.
fn differs(reported: &Value, wanted: &Value) -> bool {
    match (reported, wanted) {
        (Value::Object(reported), Value::Object(wanted)) => wanted.iter().any(|(key, value)| {
            key != "lastHeartbeatTime" && differs(reported.get(key).unwrap_or(&Value::Null), value)
        }),
        (Value::Array(reported), Value::Array(wanted)) => {
            let key = |value: &Value| value.get("type").cloned();
            if wanted.iter().all(|value| key(value).is_some()) && !wanted.is_empty() {
                // Lists by type may hold entries of others.
                return wanted.iter().any(|value| {
                    let same =
                        |other: &&Value| key(other) == key(value) && other.get("address") == value.get("address");
                    reported.iter().find(same).is_none_or(|other| differs(other, value))
                });
            }
            reported.len() != wanted.len() || reported.iter().zip(wanted).any(|(a, b)| differs(a, b))
        }
        (Value::Null, Value::Array(wanted)) => !wanted.is_empty(),
        (Value::Null, Value::String(wanted)) => !wanted.is_empty(),
        (reported, wanted) => reported != wanted,
    }
}

/// Of os-release.
fn os_image(text: &str) -> String {
    let pretty = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(|| "kminik".to_string(), |name| name.trim_matches('"').to_string())
}

/// Go's name of the processor architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_told_once() {
        let status = |memory: &str, ready: &str| json!({"conditions": [{"type": "MemoryPressure", "status": memory}, {"type": "Ready", "status": ready}]});
        let told = |before: &Value, now: &Value| changed_conditions(before, now).collect::<Vec<_>>();
        assert_eq!(told(&Value::Null, &status("False", "False")), ["NodeHasSufficientMemory"]);
        assert_eq!(told(&status("False", "False"), &status("False", "True")), ["NodeReady"]);
        assert_eq!(
            told(&status("Unknown", "Unknown"), &status("False", "True")),
            ["NodeHasSufficientMemory", "NodeReady"]
        );
        assert_eq!(told(&status("False", "True"), &status("False", "False")), ["NodeNotReady"]);
        assert_eq!(told(&status("False", "True"), &status("False", "True")), [""; 0]);
    }

    #[test]
    fn foreign_fields_are_no_difference() {
        let reported = json!({"capacity": {"cpu": "2", "example.com/dongle": "3"}, "images": [{"names": ["a"]}],
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "old"}, {"type": "Mine", "status": "True"}]});
        let wanted = json!({"capacity": {"cpu": "2"}, "images": [{"names": ["a"]}],
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "new"}]});
        assert!(!differs(&reported, &wanted));
        assert!(differs(&reported, &json!({"capacity": {"cpu": "4"}})));
        assert!(differs(&reported, &json!({"conditions": [{"type": "Ready", "status": "False"}]})));
    }
}
