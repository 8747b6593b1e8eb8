use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::{Cluster, eventually, object};

fn claim(name: &str, class: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    })
}

fn volume(name: &str, class: &str, size: &str) -> PersistentVolume {
    object(json!({
        "metadata": {"name": name},
        "spec": {
            "storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/tmp/x"},
        },
    }))
}

async fn phase(cluster: &Cluster, name: &str) -> Option<String> {
    cluster.api::<PersistentVolumeClaim>("default").get(name).await.unwrap().status?.phase
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_gets_the_smallest_volume_that_suits_and_keeps_it_while_used() {
    let cluster = Cluster::start(&["a"]).await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    for (name, size) in [("large", "10Gi"), ("small", "500Mi"), ("right", "2Gi")] {
        volumes.create(&PostParams::default(), &volume(name, "by-hand", size)).await.unwrap();
    }
    cluster.create::<PersistentVolumeClaim>("default", claim("c", "by-hand")).await;
    eventually("bound", || async { phase(&cluster, "c").await.filter(|phase| phase == "Bound") }).await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    assert_eq!(claims.get("c").await.unwrap().spec.unwrap().volume_name.as_deref(), Some("right"));

    let user = json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "x"}], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
    }});
    cluster.create::<Pod>("default", user).await;
    eventually("the pod runs", || async { cluster.api::<Pod>("default").get("p").await.unwrap().status?.pod_ip }).await;
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(claims.get_opt("c").await.unwrap().is_some(), "a claim in use stays");
    cluster.api::<Pod>("default").delete("p", &DeleteParams::default()).await.unwrap();
    eventually("the claim goes", || async { claims.get_opt("c").await.unwrap().is_none().then_some(()) }).await;
    eventually("the volume is released", || async {
        volumes.get("right").await.unwrap().status?.phase.filter(|phase| phase == "Released")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_waits_for_its_first_consumer() {
    let cluster = Cluster::start(&["a", "b"]).await;
    let classes: Api<StorageClass> = Api::all(cluster.client.clone());
    let class = json!({
        "metadata": {"name": "late"}, "provisioner": "example.com/p", "volumeBindingMode": "WaitForFirstConsumer",
    });
    classes.create(&PostParams::default(), &object(class)).await.unwrap();
    cluster.create::<PersistentVolumeClaim>("default", claim("c", "late")).await;
    eventually("pending", || async { phase(&cluster, "c").await.filter(|phase| phase == "Pending") }).await;
    let user = json!({"metadata": {"name": "p"}, "spec": {
        "nodeSelector": {"kubernetes.io/hostname": "b"},
        "containers": [{"name": "c", "image": "x"}], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
    }});
    cluster.create::<Pod>("default", user).await;
    let asked = eventually("the provisioner is asked for node b", || async {
        let claim = cluster.api::<PersistentVolumeClaim>("default").get("c").await.unwrap();
        let annotations = claim.annotations().clone();
        annotations.contains_key("volume.kubernetes.io/storage-provisioner").then_some(claim)
    })
    .await;
    assert_eq!(asked.annotations()["volume.kubernetes.io/selected-node"], "b");
    // What a provisioner does.
    let mut made = volume("pvc-x", "late", "1Gi");
    made.spec.get_or_insert_default().claim_ref = Some(kminik_client::reference(&asked));
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    volumes.create(&PostParams::default(), &made).await.unwrap();
    let pod = eventually("the pod runs", || async {
        let pod = cluster.api::<Pod>("default").get("p").await.unwrap();
        pod.status.as_ref()?.pod_ip.as_ref()?;
        Some(pod)
    })
    .await;
    assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_of_attributes_stays_while_a_claim_or_a_volume_names_it() {
    let cluster = Cluster::start(&[]).await;
    let classes: Api<VolumeAttributesClass> = Api::all(cluster.client.clone());
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let class =
        |name: &str| json!({"metadata": {"name": name}, "driverName": "d.example.com", "parameters": {"iops": "1"}});
    for name in ["claimed", "of-volume", "free"] {
        let made = classes.create(&PostParams::default(), &object(class(name))).await.unwrap();
        assert_eq!(made.finalizers(), ["kubernetes.io/vac-protection"]);
    }
    let mut of_claim = claim("c", "none");
    of_claim["spec"]["volumeAttributesClassName"] = "claimed".into();
    cluster.create::<PersistentVolumeClaim>("default", of_claim).await;
    let of_volume = json!({"metadata": {"name": "v"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "volumeAttributesClassName": "of-volume",
        "csi": {"driver": "d.example.com", "volumeHandle": "h"},
    }});
    volumes.create(&PostParams::default(), &object(of_volume)).await.unwrap();
    for name in ["claimed", "of-volume", "free"] {
        classes.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let gone = async |name: &str| {
        eventually(name, || async { classes.get_opt(name).await.unwrap().is_none().then_some(()) }).await;
    };
    gone("free").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for name in ["claimed", "of-volume"] {
        assert!(classes.get_opt(name).await.unwrap().is_some(), "{name} is in use");
    }
    cluster.api::<PersistentVolumeClaim>("default").delete("c", &DeleteParams::default()).await.unwrap();
    gone("claimed").await;
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
    gone("of-volume").await;
}
