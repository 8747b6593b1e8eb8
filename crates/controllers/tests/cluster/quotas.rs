use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Cluster, eventually, object};

/// Waits until the quota's status has these amounts.
async fn used(cluster: &Cluster, expected: Value) {
    eventually(&format!("used is {expected}"), || async {
        let status = cluster.api::<ResourceQuota>("default").get("q").await.unwrap().status?;
        (serde_json::to_value(status.used?).unwrap() == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_counted_charged_and_given_back() {
    let cluster = Cluster::start(&["a"]).await;
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    cluster.create::<Pod>("default", pod("first")).await;
    cluster.create::<ConfigMap>("default", json!({"metadata": {"name": "mine"}})).await;
    let hard = json!({"pods": "2", "count/configmaps": "9"});
    cluster.create::<ResourceQuota>("default", json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    // The map with the cluster's root certificates counts, too.
    used(&cluster, json!({"pods": "1", "count/configmaps": "2"})).await;
    cluster.create::<Pod>("default", pod("second")).await;
    used(&cluster, json!({"pods": "2", "count/configmaps": "2"})).await;
    let pods = cluster.api::<Pod>("default");
    assert!(pods.create(&PostParams::default(), &object(pod("third"))).await.is_err(), "there is no room");
    // A pod that has ended takes nothing, though it is still there.
    let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status("first", &PatchParams::default(), &ended).await.unwrap();
    used(&cluster, json!({"pods": "1", "count/configmaps": "2"})).await;
    pods.delete("second", &DeleteParams::default()).await.unwrap();
    cluster.api::<ConfigMap>("default").delete("mine", &DeleteParams::default()).await.unwrap();
    used(&cluster, json!({"pods": "0", "count/configmaps": "1"})).await;
    cluster.create::<Pod>("default", pod("third")).await;
}
