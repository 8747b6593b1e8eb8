use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kminik_provisioner::{PROVISIONER, ProvisionerConfig, run_with};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, eventually, object};

/// Longer than any test.
const RELUCTANT: Duration = Duration::from_secs(3600);
const GIVEN_UP_AFTER: Duration = Duration::from_secs(3);

async fn class(cluster: &Cluster, name: &str, policy: &str) {
    let classes: Api<StorageClass> = Api::all(cluster.client.clone());
    let value = json!({"metadata": {"name": name}, "provisioner": PROVISIONER, "reclaimPolicy": policy, "volumeBindingMode": "Immediate"});
    classes.create(&PostParams::default(), &object(value)).await.unwrap();
}

fn config(cluster: &Cluster, root: PathBuf, node: &str) -> ProvisionerConfig {
    let (client, node) = (cluster.client.clone(), node.into());
    ProvisionerConfig { client, root, node, reluctant: RELUCTANT, given_up_after: GIVEN_UP_AFTER }
}

async fn claim(cluster: &Cluster, name: &str, class: &str) -> PersistentVolume {
    let value = json!({"metadata": {"name": name}, "spec": {
        "storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }});
    cluster.create::<PersistentVolumeClaim>("default", value).await;
    let volume = eventually(&format!("claim {name} bound"), || async {
        let claim = cluster.api::<PersistentVolumeClaim>("default").get(name).await.unwrap();
        let bound = claim.status.as_ref()?.phase.as_deref() == Some("Bound");
        claim.spec?.volume_name.filter(|_| bound)
    })
    .await;
    Api::<PersistentVolume>::all(cluster.client.clone()).get(&volume).await.unwrap()
}

fn path(volume: &PersistentVolume) -> PathBuf {
    volume.spec.as_ref().unwrap().host_path.as_ref().unwrap().path.clone().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_get_directories_that_go_with_them() {
    let cluster = Cluster::start(&["a"]).await;
    let root = tempfile::tempdir().unwrap();
    let start = || {
        let stop = CancellationToken::new();
        let config = config(&cluster, root.path().into(), "a");
        (stop.clone(), tokio::spawn(run_with(config, stop)))
    };
    let (stop, running) = start();
    class(&cluster, "deleted", "Delete").await;
    class(&cluster, "kept", "Retain").await;
    let volume = claim(&cluster, "c", "deleted").await;
    assert_eq!(path(&volume), root.path().join("default/c"));
    std::fs::write(path(&volume).join("data"), "x").unwrap();
    let kept = claim(&cluster, "k", "kept").await;
    std::fs::write(path(&kept).join("data"), "x").unwrap();

    // Made before a restart, removed after it.
    stop.cancel();
    running.await.unwrap().unwrap();
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    claims.delete("k", &DeleteParams::default()).await.unwrap();
    let (_stop, _running) = start();
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    eventually("one volume is left", || async {
        (volumes.list(&ListParams::default()).await.unwrap().items.len() == 1).then_some(())
    })
    .await;
    assert!(!path(&volume).exists());
    assert!(path(&kept).join("data").exists());

    // The next claim of a kept volume's name must not find its data; one of a removed volume's name starts empty.
    let next = claim(&cluster, "k", "deleted").await;
    assert_ne!(path(&next), path(&kept));
    let again = claim(&cluster, "c", "deleted").await;
    assert_eq!(path(&again), path(&volume));
    assert_eq!(std::fs::read_dir(path(&again)).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_nodes_one_serves_a_claim() {
    let cluster = Cluster::start(&["a", "b"]).await;
    let root = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    for node in ["a", "b"] {
        let directory = root.path().join(node);
        std::fs::create_dir(&directory).unwrap();
        let config = config(&cluster, directory, node);
        tokio::spawn(run_with(config, stop.clone()));
    }
    class(&cluster, "deleted", "Delete").await;
    for name in ["c1", "c2", "c3", "c4"] {
        let volume = claim(&cluster, name, "deleted").await;
        let affinity = serde_json::to_value(volume.spec.as_ref().unwrap().node_affinity.as_ref().unwrap()).unwrap();
        let node = affinity["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"][0].clone();
        let node = node.as_str().unwrap();
        assert_eq!(path(&volume), root.path().join(node).join("default").join(name));
        let other = if node == "a" { "b" } else { "a" };
        assert!(path(&volume).is_dir() && !root.path().join(other).join("default").join(name).exists());
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_waits_neither_for_a_cordoned_node_nor_for_one_that_is_gone() {
    let cluster = Cluster::start(&["a", "b"]).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    nodes.patch("b", &PatchParams::default(), &cordon).await.unwrap();
    let root = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let start = |node: &str| {
        let directory = root.path().join(node);
        std::fs::create_dir(&directory).unwrap();
        let config = config(&cluster, directory, node);
        tokio::spawn(run_with(config, stop.clone()));
    };
    class(&cluster, "deleted", "Delete").await;
    start("b");
    // Were the cordoned node eager, it would have taken this before the other is there.
    let value = json!({"metadata": {"name": "lost", "annotations": {"volume.kubernetes.io/selected-node": "gone"}}, "spec": {
        "storageClassName": "deleted", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }});
    cluster.create::<PersistentVolumeClaim>("default", value).await;
    let events = cluster.api::<Event>("default");
    let told = eventually("the event of the missing node", || async {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        events.into_iter().find(|event| event.reason.as_deref() == Some("ProvisioningFailed"))
    });
    assert!(told.await.message.unwrap().ends_with("failed to get target node: nodes \"gone\" not found"));
    start("a");
    for name in ["c1", "c2"] {
        assert!(path(&claim(&cluster, name, "deleted").await).starts_with(root.path().join("a")));
    }
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    let chosen =
        || async { claims.get("lost").await.unwrap().annotations().get("volume.kubernetes.io/selected-node").cloned() };
    assert_eq!(eventually("another node to be chosen", chosen).await, "a");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_taken_by_a_node_that_is_there_and_late_by_a_cordoned_one() {
    let cluster = Cluster::start(&["a"]).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    class(&cluster, "deleted", "Delete").await;
    let value = |name: &str, node: Option<&str>| {
        json!({"metadata": {"name": name, "annotations": {"volume.kubernetes.io/selected-node": node}}, "spec": {
            "storageClassName": "deleted", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }})
    };
    cluster.create::<PersistentVolumeClaim>("default", value("lost", Some("gone"))).await;
    let patched = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": null}}});
    cluster.create::<PersistentVolumeClaim>("default", value("free", Some("a"))).await;
    claims.patch("free", &PatchParams::default(), &Patch::Merge(patched)).await.unwrap();
    // Both claims are older than a node may be reluctant.
    tokio::time::sleep(GIVEN_UP_AFTER).await;
    let root = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let started = Instant::now();
    let config = ProvisionerConfig { reluctant: GIVEN_UP_AFTER, ..config(&cluster, root.path().into(), "b") };
    tokio::spawn(run_with(config, stop.clone()));
    let chosen = |name: &'static str| {
        let claims = claims.clone();
        move || {
            let claims = claims.clone();
            async move { claims.get(name).await.unwrap().annotations().get("volume.kubernetes.io/selected-node").cloned() }
        }
    };
    // Told by the provisioner of a node that has no object: it works, and has taken nothing.
    eventually("the choice of the missing node to be undone", || async {
        let claim = claims.get("lost").await.unwrap();
        (!claim.annotations().contains_key("volume.kubernetes.io/selected-node")).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((chosen("lost")().await, chosen("free")().await), (None, None));
    let cordoned = json!({"metadata": {"name": "b"}, "spec": {"unschedulable": true}});
    nodes.create(&PostParams::default(), &object(cordoned)).await.unwrap();
    for name in ["lost", "free"] {
        assert_eq!(eventually("the only provisioner's node to be chosen", chosen(name)).await, "b");
    }
    assert!(started.elapsed() >= GIVEN_UP_AFTER, "{:?}", started.elapsed());
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_had_goes_only_when_it_is_missed_for_long() {
    let cluster = Cluster::start(&["a"]).await;
    let root = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(run_with(config(&cluster, root.path().into(), "a"), stop.clone()));
    let (nodes, volumes): (Api<Node>, Api<PersistentVolume>) =
        (Api::all(cluster.client.clone()), Api::all(cluster.client.clone()));
    // A node that goes twice: the second time it is missed as long as the first.
    for name in ["first", "second"] {
        nodes.create(&PostParams::default(), &object(json!({"metadata": {"name": "b"}}))).await.unwrap();
        let volume = json!({
            "metadata": {"name": name, "annotations": {
                "hostPathProvisionerIdentity": "b", "pv.kubernetes.io/provisioned-by": PROVISIONER,
            }},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/none"},
                "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "deleted",
                "claimRef": {"namespace": "default", "name": "gone", "uid": "of-no-claim"},
            },
        });
        volumes.create(&PostParams::default(), &object(volume)).await.unwrap();
        eventually("the release of the volume", || async {
            let status = volumes.get(name).await.unwrap().status;
            (status?.phase.as_deref() == Some("Released")).then_some(())
        })
        .await;
        let missed = Instant::now();
        nodes.delete("b", &DeleteParams::default()).await.unwrap();
        eventually("the end of the volume", || async { volumes.get_opt(name).await.unwrap().is_none().then_some(()) })
            .await;
        assert!(missed.elapsed() >= GIVEN_UP_AFTER, "{name}: {:?}", missed.elapsed());
    }
    stop.cancel();
}
