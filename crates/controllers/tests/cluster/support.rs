//! A control plane in process: API server over a store in a temporary directory, all controllers, the scheduler, and a node whose
//! kubelet is a few lines that make pods run at once.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kminik_apiserver::auth::UserInfo;
use kminik_apiserver::storage::codec::encode;
use kminik_apiserver::{ApiServer, CertificateAndKey, Config};
use kminik_base::component::Supervisor;
use kminik_base::pki::{Authority, Identity, Subject, Usage};
use kminik_client::{Informers, ObjectKey};
use kminik_controllers::ControllersConfig;
use kminik_scheduler::{Scheduler, SchedulerConfig};
use kminik_store::{EmbeddedStore, Op, Options, Store, Txn};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

const DAY: Duration = Duration::from_secs(86_400);
/// A condition of a test that is not met by then is not met.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    _supervisor: Supervisor,
    _directory: tempfile::TempDir,
    _stop: DropGuard,
}

fn pair(identity: Identity) -> CertificateAndKey {
    CertificateAndKey { certificate_pem: identity.cert_pem, key_pem: identity.key_pem }
}

impl Cluster {
    /// A cluster with these ready nodes.
    pub(crate) async fn start(nodes: &[&str]) -> Self {
        Self::start_with(nodes, &[]).await
    }

    /// A cluster with these ready nodes, on a store that an earlier one has left these in: by their resource, whole objects.
    pub(crate) async fn start_with(nodes: &[&str], earlier: &[(&str, Value)]) -> Self {
        if std::env::var_os("TEST_LOG").is_some() {
            let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_test_writer().try_init();
        }
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&directory.path().join("store.redb"), Options::default()).unwrap();
        let put = |(resource, object): &(&str, Value)| {
            let member = |name: &str| object["metadata"][name].as_str().unwrap();
            let key = format!("/registry/core/{resource}/{}/{}", member("namespace"), member("name"));
            let value = encode(&object.clone().try_into().unwrap()).unwrap();
            Op::Put { key: key.into(), value, ttl: None }
        };
        let written = Txn { compare: Vec::new(), ops: earlier.iter().map(put).collect() };
        store.txn(written).await.unwrap();
        let authority = Authority::generate("kminik-ca", DAY).unwrap();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let usage = Usage::Server { names: vec!["localhost".into()], addresses: vec![address] };
        let serving = authority.issue(&Subject::new("kube-apiserver", None), &usage, DAY).unwrap();
        let kubelet = authority.issue(&Subject::new("kubelet-client", None), &Usage::Client, DAY).unwrap();
        let (key, _) = kminik_base::pki::generate_key().unwrap();
        let ca = authority.cert_pem().to_owned();
        // What is announced to clients in the cluster cannot be loopback.
        let announced = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let config = Config::new(Arc::new(store), pair(serving), ca.clone(), key, pair(kubelet), announced);
        let api = Arc::new(ApiServer::new(config).await.unwrap());
        let stop = CancellationToken::new();
        let client_for = {
            let api = api.clone();
            move |user: &str| {
                let groups: &[&str] = if user.starts_with("system:serviceaccount:") {
                    &["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]
                } else {
                    &["system:authenticated"]
                };
                Client::new(api.service(UserInfo::new(user, groups)), "default")
            }
        };
        let client = Client::new(api.service(UserInfo::new("admin", &["system:masters"])), "default");
        let informers = Informers::new(client_for("system:kube-controller-manager"), stop.clone());
        let supervisor = Supervisor::new(Duration::from_secs(5));
        let scheduler = SchedulerConfig::new(client_for("system:kube-scheduler"), informers.clone());
        supervisor.start(Arc::new(Scheduler::new(scheduler)));
        let mut config = ControllersConfig::new(Arc::new(client_for), informers.clone(), ca);
        config.authority = Some(Arc::new(authority));
        for component in kminik_controllers::components(config) {
            supervisor.start(component);
        }
        let cluster = Self { client, _supervisor: supervisor, _directory: directory, _stop: stop.clone().drop_guard() };
        for node in nodes {
            cluster.add_node(node, json!({})).await;
        }
        tokio::spawn(run_pods(cluster.client.clone(), Informers::new(cluster.client.clone(), stop.clone()), stop));
        cluster
    }

    pub(crate) async fn add_node(&self, name: &str, labels: Value) {
        let mut all = json!({"kubernetes.io/hostname": name});
        for (label, value) in labels.as_object().unwrap() {
            all[label] = value.clone();
        }
        let node: Node = object(json!({"metadata": {"name": name, "labels": all}}));
        let api: Api<Node> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &node).await.unwrap();
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let status = json!({"status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now, "lastTransitionTime": now}],
        }});
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    }

    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn create<K>(&self, namespace: &str, value: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize + Debug,
    {
        self.api::<K>(namespace).create(&PostParams::default(), &object(value)).await.unwrap()
    }

    pub(crate) async fn pods(&self, namespace: &str) -> Vec<Pod> {
        self.api::<Pod>(namespace).list(&Default::default()).await.unwrap().items
    }
}

/// Reads a typed object; `apiVersion` and `kind` may be left out.
pub(crate) fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Waits until `check` gives a value; panics with what it waited for.
pub(crate) async fn eventually<T, F>(what: &str, check: impl Fn() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The kubelets of all nodes: every pod with a node runs and is ready at once, and ends as soon as it is deleted.
async fn run_pods(client: Client, informers: Informers, stop: CancellationToken) {
    let pods = informers.get::<Pod>();
    let (send, mut changed) = tokio::sync::mpsc::unbounded_channel();
    let _subscription = pods.subscribe(move |change| {
        let _ = send.send(change.object().clone());
    });
    let addresses = AtomicU32::new(2);
    while let Some(Some(pod)) = stop.run_until_cancelled(changed.recv()).await {
        let has_node = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if !has_node || pods.get(&ObjectKey::of(pod.as_ref())).is_none() {
            continue;
        }
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
            continue;
        }
        let started = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
        // A pod that asks for it never becomes ready.
        let ready = if pod.annotations().contains_key("test/never-ready") { "False" } else { "True" };
        if !started {
            let number = addresses.fetch_add(1, Ordering::SeqCst);
            let address = format!("10.244.{}.{}", number / 250, number % 250);
            let now = k8s_openapi::jiff::Timestamp::now().to_string();
            let status = json!({"status": {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}],
            }});
            let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await;
        }
    }
}
