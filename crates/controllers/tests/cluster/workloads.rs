use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::{Cluster, eventually, object};

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    })
}

async fn complete(cluster: &Cluster, name: &str, replicas: i32) -> Deployment {
    eventually(&format!("{name} complete with {replicas}"), || async {
        let deployment = cluster.api::<Deployment>("default").get(name).await.unwrap();
        let status = deployment.status.clone().unwrap_or_default();
        let reason = status.conditions.iter().flatten().find(|own| own.type_ == "Progressing");
        let done = status.available_replicas.unwrap_or(0) == replicas
            && status.updated_replicas.unwrap_or(0) == replicas
            && status.replicas.unwrap_or(0) == replicas
            && status.observed_generation == deployment.metadata.generation
            && reason.is_some_and(|own| own.reason.as_deref() == Some("NewReplicaSetAvailable"));
        done.then_some(deployment)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_runs_rolls_back_and_goes_with_all_it_made() {
    let cluster = Cluster::start(&["a"]).await;
    let deployments = cluster.api::<Deployment>("default");
    let sets = cluster.api::<ReplicaSet>("default");
    cluster.create::<Deployment>("default", deployment("web", 3, "one:1")).await;
    let first = complete(&cluster, "web", 3).await;
    assert_eq!(first.annotations()["deployment.kubernetes.io/revision"], "1");
    let pods = cluster.pods("default").await;
    assert_eq!(pods.len(), 3, "never more pods than wanted");
    assert!(pods.iter().all(|pod| pod.labels().contains_key("pod-template-hash")));

    // A new template, then the old one again: its set is used again, as revision 3.
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    let patch = PatchParams::default();
    deployments.patch("web", &patch, &Patch::Strategic(image("two:1"))).await.unwrap();
    complete(&cluster, "web", 3).await;
    assert_eq!(sets.list(&ListParams::default()).await.unwrap().items.len(), 2);
    deployments.patch("web", &patch, &Patch::Strategic(image("one:1"))).await.unwrap();
    complete(&cluster, "web", 3).await;
    let now = sets.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(now.len(), 2);
    let active: Vec<_> = now.iter().filter(|set| set.spec.as_ref().unwrap().replicas == Some(3)).collect();
    assert_eq!(active[0].annotations()["deployment.kubernetes.io/revision"], "3");
    assert_eq!(active[0].annotations()["deployment.kubernetes.io/revision-history"], "1");

    deployments.patch("web", &patch, &Patch::Merge(json!({"spec": {"replicas": 5}}))).await.unwrap();
    complete(&cluster, "web", 5).await;
    deployments.patch("web", &patch, &Patch::Merge(json!({"spec": {"replicas": 1}}))).await.unwrap();
    complete(&cluster, "web", 1).await;

    let events = cluster.api::<Event>("default").list(&ListParams::default()).await.unwrap().items;
    let told = |reason: &str| events.iter().any(|event| event.reason.as_deref() == Some(reason));
    assert!(told("ScalingReplicaSet") && told("SuccessfulCreate") && told("Scheduled"));

    deployments.delete("web", &DeleteParams::background()).await.unwrap();
    eventually("everything gone", || async {
        let sets = sets.list(&ListParams::default()).await.unwrap().items;
        (sets.is_empty() && cluster.pods("default").await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_deletion_waits_and_orphaning_keeps() {
    let cluster = Cluster::start(&["a"]).await;
    let deployments = cluster.api::<Deployment>("default");
    for name in ["fore", "orphan"] {
        cluster.create::<Deployment>("default", deployment(name, 2, "one:1")).await;
        complete(&cluster, name, 2).await;
    }
    deployments.delete("fore", &DeleteParams::foreground()).await.unwrap();
    deployments.delete("orphan", &DeleteParams::orphan()).await.unwrap();
    eventually("both deployments gone", || async {
        deployments.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
    })
    .await;
    let sets = cluster.api::<ReplicaSet>("default").list(&ListParams::default()).await.unwrap().items;
    assert_eq!(sets.len(), 1, "foreground deletion ends after its dependents");
    assert!(sets[0].metadata.owner_references.iter().flatten().next().is_none());
    // A new deployment of the same selector adopts the set, and with it the pods.
    cluster.create::<Deployment>("default", deployment("orphan", 2, "one:1")).await;
    complete(&cluster, "orphan", 2).await;
    assert_eq!(cluster.api::<ReplicaSet>("default").list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_get_what_they_need_and_go_whole() {
    let cluster = Cluster::start(&["a"]).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.create(&PostParams::default(), &object(json!({"metadata": {"name": "n"}}))).await.unwrap();
    let (maps, accounts) = (cluster.api::<ConfigMap>("n"), cluster.api::<ServiceAccount>("n"));
    eventually("account and root CA", || async {
        let account = accounts.get_opt("default").await.unwrap();
        let map = maps.get_opt("kube-root-ca.crt").await.unwrap();
        (account.is_some() && map.is_some()).then_some(())
    })
    .await;
    maps.patch("kube-root-ca.crt", &PatchParams::default(), &Patch::Merge(json!({"data": {"ca.crt": "x"}})))
        .await
        .unwrap();
    eventually("the root CA is put right", || async {
        let map = maps.get("kube-root-ca.crt").await.unwrap();
        map.data.unwrap()["ca.crt"].contains("BEGIN CERTIFICATE").then_some(())
    })
    .await;
    maps.delete("kube-root-ca.crt", &DeleteParams::default()).await.unwrap();
    eventually("the root CA is put back", || async { maps.get_opt("kube-root-ca.crt").await.unwrap() }).await;

    cluster.create::<Deployment>("n", deployment("web", 2, "one:1")).await;
    eventually("pods run", || async { (cluster.pods("n").await.len() == 2).then_some(()) }).await;
    namespaces.delete("n", &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", || async { namespaces.get_opt("n").await.unwrap().is_none().then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_lead_to_ready_pods() {
    let cluster = Cluster::start(&["a"]).await;
    let service = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "serve"}]},
    });
    cluster.create::<Service>("default", service).await;
    let mut web = deployment("web", 2, "one:1");
    web["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"name": "serve", "containerPort": 8080}]);
    cluster.create::<Deployment>("default", web).await;
    let slices = cluster.api::<EndpointSlice>("default");
    let ours = ListParams::default().labels("kubernetes.io/service-name=web");
    let ready = |slices: &[EndpointSlice]| {
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        endpoints.filter(|own| own.conditions.as_ref().is_some_and(|own| own.ready == Some(true))).count()
    };
    let found = eventually("two ready endpoints", || async {
        let found = slices.list(&ours).await.unwrap().items;
        (ready(&found) == 2 && found.len() == 1).then_some(found)
    })
    .await;
    let port = &found[0].ports.as_ref().unwrap()[0];
    assert_eq!((port.port, port.name.as_deref()), (Some(8080), Some("http")));
    let pod = cluster.pods("default").await.remove(0);
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let pods = cluster.api::<Pod>("default");
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    eventually("one ready endpoint", || async { (ready(&slices.list(&ours).await.unwrap().items) == 1).then_some(()) })
        .await;
    cluster.api::<Service>("default").delete("web", &DeleteParams::default()).await.unwrap();
    eventually("no slices", || async { slices.list(&ours).await.unwrap().items.is_empty().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_get_networks_and_pods_find_room() {
    let cluster = Cluster::start(&["a", "b"]).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let networks = eventually("two networks", || async {
        let nodes = nodes.list(&ListParams::default()).await.unwrap().items;
        let mut networks: Vec<String> = nodes.into_iter().filter_map(|node| node.spec?.pod_cidr).collect();
        networks.sort();
        (networks.len() == 2).then_some(networks)
    })
    .await;
    assert_eq!(networks, ["10.244.0.0/24", "10.244.1.0/24"]);

    let mut large = deployment("large", 3, "one:1");
    large["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "3"}});
    cluster.create::<Deployment>("default", large).await;
    let waiting = eventually("one pod without room", || async {
        let pods = cluster.pods("default").await;
        let placed = pods.iter().filter(|pod| pod.spec.as_ref().unwrap().node_name.is_some()).count();
        let told = pods.into_iter().find(|pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().any(|own| own.type_ == "PodScheduled" && own.status == "False")
        });
        told.filter(|_| placed == 2)
    })
    .await;
    let conditions = waiting.status.unwrap().conditions.unwrap();
    let condition = conditions.iter().find(|own| own.type_ == "PodScheduled").unwrap();
    assert_eq!(
        condition.message.as_deref(),
        Some(
            "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are available: 2 No \
             preemption victims found for incoming pod."
        )
    );
    cluster.add_node("c", json!({})).await;
    complete(&cluster, "large", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_runs_on_every_node_and_is_replaced_node_by_node() {
    let cluster = Cluster::start(&["a", "b"]).await;
    let sets = cluster.api::<DaemonSet>("default");
    let mut daemon = deployment("d", 0, "one:1");
    daemon["spec"].as_object_mut().unwrap().remove("replicas");
    cluster.create::<DaemonSet>("default", daemon).await;
    let serving = |want: i32, image: &'static str| {
        let (cluster, sets) = (&cluster, &sets);
        async move {
            eventually(&format!("{want} daemons of {image}"), || async {
                let set = sets.get("d").await.unwrap();
                let status = set.status.clone().unwrap_or_default();
                let pods = cluster.pods("default").await;
                let images =
                    pods.iter().filter(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image));
                let all = status.number_available == Some(want) && status.updated_number_scheduled == Some(want);
                (all && images.count() == usize::try_from(want).unwrap()
                    && pods.len() == usize::try_from(want).unwrap())
                .then_some(())
            })
            .await;
        }
    };
    serving(2, "one:1").await;
    cluster.add_node("c", json!({})).await;
    serving(3, "one:1").await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two:1"}]}}}});
    sets.patch("d", &PatchParams::default(), &Patch::Strategic(image)).await.unwrap();
    serving(3, "two:1").await;
    sets.delete("d", &DeleteParams::background()).await.unwrap();
    eventually("no pods", || async { cluster.pods("default").await.is_empty().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_numbers_its_pods_and_keeps_their_claims() {
    let cluster = Cluster::start(&["a"]).await;
    let sets = cluster.api::<StatefulSet>("default");
    let mut set = deployment("db", 2, "one:1");
    set["spec"]["serviceName"] = json!("db");
    set["spec"]["volumeClaimTemplates"] = json!([{
        "metadata": {"name": "data"},
        "spec": {"storageClassName": "by-hand", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }]);
    for n in 0..3 {
        let volume = json!({"metadata": {"name": format!("v{n}")}, "spec": {
            "storageClassName": "by-hand", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp/x"},
        }});
        let volumes: Api<k8s_openapi::api::core::v1::PersistentVolume> = Api::all(cluster.client.clone());
        volumes.create(&PostParams::default(), &object(volume)).await.unwrap();
    }
    cluster.create::<StatefulSet>("default", set).await;
    let ready = |want: i32| {
        let sets = &sets;
        async move {
            eventually(&format!("{want} ready"), || async {
                let set = sets.get("db").await.unwrap();
                let status = set.status.clone().unwrap_or_default();
                let done = status.ready_replicas.unwrap_or(0) == want
                    && status.replicas == want
                    && status.updated_replicas.unwrap_or(0) == want
                    && status.observed_generation == set.metadata.generation
                    && status.current_revision == status.update_revision;
                done.then_some(())
            })
            .await;
        }
    };
    ready(2).await;
    let mut names: Vec<_> = cluster.pods("default").await.iter().map(|pod| pod.name_any()).collect();
    names.sort();
    assert_eq!(names, ["db-0", "db-1"]);
    let volume = |claim: &'static str| {
        let claims = cluster.api::<PersistentVolumeClaim>("default");
        async move { claims.get(claim).await.unwrap().spec.unwrap().volume_name.unwrap() }
    };
    let before = volume("data-db-1").await;
    let pod = cluster.api::<Pod>("default").get("db-1").await.unwrap();
    cluster.api::<Pod>("default").delete("db-1", &DeleteParams::default()).await.unwrap();
    eventually("db-1 is made anew", || async {
        let next = cluster.api::<Pod>("default").get_opt("db-1").await.unwrap()?;
        (next.uid() != pod.uid()).then_some(())
    })
    .await;
    ready(2).await;
    assert_eq!(volume("data-db-1").await, before, "the claim outlives the pod");
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two:1"}]}}}});
    sets.patch("db", &PatchParams::default(), &Patch::Strategic(image)).await.unwrap();
    ready(2).await;
    for pod in cluster.pods("default").await {
        assert_eq!(pod.spec.unwrap().containers[0].image.as_deref(), Some("two:1"));
    }
    sets.patch("db", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 1}}))).await.unwrap();
    ready(1).await;
    assert_eq!(volume("data-db-1").await, before, "scaling down keeps claims");
}
