use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{EvictParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Cluster, eventually};

/// Waits until the budget allows so many disruptions of so many pods.
async fn allowed(cluster: &Cluster, disruptions: i32, healthy: i32, desired: i32, expected: i32) -> Value {
    let wanted = (disruptions, healthy, desired, expected);
    eventually(&format!("the budget says {wanted:?}"), || async {
        let budget = cluster.api::<PodDisruptionBudget>("default").get("b").await.unwrap();
        let status = budget.status?;
        let found = (status.disruptions_allowed, status.current_healthy, status.desired_healthy, status.expected_pods);
        let current = status.observed_generation == budget.metadata.generation && status.disrupted_pods.is_none();
        (current && found == wanted).then(|| serde_json::to_value(status.conditions).unwrap())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evictions_go_as_far_as_the_budget() {
    let cluster = Cluster::start(&["a"]).await;
    let labels = json!({"app": "x"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}});
    cluster.create::<Deployment>("default", deployment).await;
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": "100%", "selector": {"matchLabels": labels}}});
    cluster.create::<PodDisruptionBudget>("default", budget).await;
    let conditions = allowed(&cluster, 0, 3, 3, 3).await;
    assert_eq!((&conditions[0]["type"], &conditions[0]["status"]), (&json!("DisruptionAllowed"), &json!("False")));
    assert_eq!(conditions[0]["reason"], "InsufficientPods");

    let pods = cluster.api::<Pod>("default");
    let evict = async || {
        let name = cluster.pods("default").await.pop().unwrap().metadata.name.unwrap();
        pods.evict(&name, &EvictParams::default()).await
    };
    let Err(kube::Error::Api(refused)) = evict().await else { panic!("there is nothing to spare") };
    assert_eq!((refused.code, refused.reason.as_str()), (429, "TooManyRequests"));
    let cause = &refused.details.unwrap().causes[0];
    assert_eq!(
        (cause.reason.as_str(), cause.message.as_str()),
        ("DisruptionBudget", "The disruption budget b needs 3 healthy pods and has 3 currently",)
    );

    let change = Patch::Merge(json!({"spec": {"minAvailable": null, "maxUnavailable": "30%"}}));
    let budgets = cluster.api::<PodDisruptionBudget>("default");
    budgets.patch("b", &PatchParams::default(), &change).await.unwrap();
    let conditions = allowed(&cluster, 1, 3, 2, 3).await;
    assert_eq!((&conditions[0]["status"], &conditions[0]["reason"]), (&json!("True"), &json!("SufficientPods")));
    evict().await.unwrap();
    // The pod is replaced, and the next may go.
    allowed(&cluster, 1, 3, 2, 3).await;
    evict().await.unwrap();
}
