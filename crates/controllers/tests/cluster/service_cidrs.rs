//! Ranges of cluster IPs: ready when they are protected, gone when nobody uses them.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::support::{Cluster, eventually, object};

fn ready(range: &ServiceCIDR) -> Option<String> {
    let conditions = range.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.status.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_in_use_outlives_its_deletion() {
    let cluster = Cluster::start(&[]).await;
    let ranges: Api<ServiceCIDR> = Api::all(cluster.client.clone());
    let range = object(json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/24"]}}));
    ranges.create(&PostParams::default(), &range).await.unwrap();
    let made = eventually("the range is ready", || async {
        ranges.get("more").await.ok().filter(|range| ready(range).as_deref() == Some("True"))
    })
    .await;
    assert_eq!(made.metadata.finalizers.unwrap(), ["networking.k8s.io/service-cidr-finalizer"]);

    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "default");
    let service: Service =
        object(json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.200.0.7", "ports": [{"port": 80}]}}));
    eventually("the server knows the range", || async { services.create(&PostParams::default(), &service).await.ok() })
        .await;
    ranges.delete("more", &DeleteParams::default()).await.unwrap();
    eventually("the range says that it is in use", || async {
        ranges.get("more").await.ok().filter(|range| ready(range).as_deref() == Some("False"))
    })
    .await;
    services.delete("s", &DeleteParams::default()).await.unwrap();
    eventually("the range goes", || async { ranges.get_opt("more").await.unwrap().is_none().then_some(()) }).await;
}
