//! Garbage of kinds that come and go while the collector runs.

use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::core::ApiResource;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::support::{Cluster, eventually, object};

fn kind(version: &str, name: &str) -> ApiResource {
    ApiResource {
        group: "example.com".into(),
        version: version.into(),
        api_version: format!("example.com/{version}"),
        kind: name.into(),
        plural: format!("{}s", name.to_lowercase()),
    }
}

/// Defines a kind with this one version, and waits until it is served.
async fn define(client: &Client, kind: &ApiResource) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = json!({
        "metadata": {"name": format!("{}.example.com", kind.plural)},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": kind.plural, "kind": kind.kind},
            "versions": [{"name": kind.version, "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    definitions.create(&PostParams::default(), &object(definition)).await.unwrap();
    let objects: Api<DynamicObject> = Api::all_with(client.clone(), kind);
    eventually("the kind to be served", || async { objects.list(&Default::default()).await.ok() }).await;
}

fn objects(cluster: &Cluster, kind: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(cluster.client.clone(), "default", kind)
}

fn named(name: &str, owner: Option<Value>) -> Value {
    json!({"metadata": {"name": name, "ownerReferences": owner.into_iter().collect::<Vec<_>>()}})
}

fn owner(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "blockOwnerDeletion": true})
}

async fn create(api: &Api<DynamicObject>, kind: &ApiResource, value: Value) -> DynamicObject {
    let mut value = value;
    value["apiVersion"] = json!(kind.api_version);
    value["kind"] = json!(kind.kind);
    api.create(&PostParams::default(), &object(value)).await.unwrap()
}

fn by(policy: PropagationPolicy) -> DeleteParams {
    DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() }
}

async fn gone<K>(api: &Api<K>, name: &str)
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    eventually(&format!("{name} to go"), || async { api.get_opt(name).await.unwrap().is_none().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_defined_later_owns_and_is_owned() {
    let cluster = Cluster::start(&[]).await;
    let maps = cluster.api::<ConfigMap>("default");
    // Its owner's kind is not there yet: it waits for it.
    let early = owner("example.com/v1", "Widget", "never", "no-such-uid");
    maps.create(&PostParams::default(), &object(named("early", Some(early)))).await.unwrap();
    let widget = kind("v1", "Widget");
    define(&cluster.client, &widget).await;
    let widgets = objects(&cluster, &widget);
    gone(&maps, "early").await;

    for policy in [PropagationPolicy::Background, PropagationPolicy::Foreground, PropagationPolicy::Orphan] {
        let orphan = policy == PropagationPolicy::Orphan;
        let map: ConfigMap = cluster.create("default", named("owner", None)).await;
        let reference = owner("v1", "ConfigMap", "owner", &map.uid().unwrap());
        create(&widgets, &widget, named("owned", Some(reference))).await;
        let own = create(&widgets, &widget, named("owner", None)).await;
        let reference = owner("example.com/v1", "Widget", "owner", &own.uid().unwrap());
        cluster.create::<ConfigMap>("default", named("owned", Some(reference))).await;

        maps.delete("owner", &by(policy.clone())).await.unwrap();
        widgets.delete("owner", &by(policy)).await.unwrap();
        gone(&maps, "owner").await;
        gone(&widgets, "owner").await;
        if orphan {
            let owners =
                (maps.get("owned").await.unwrap().metadata.owner_references, widgets.get("owned").await.unwrap());
            assert_eq!((owners.0, owners.1.metadata.owner_references), (None, None));
        } else {
            gone(&maps, "owned").await;
            gone(&widgets, "owned").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_objects_of_a_removed_kind_owned_goes_with_them() {
    let cluster = Cluster::start(&[]).await;
    let (maps, widget) = (cluster.api::<ConfigMap>("default"), kind("v1", "Widget"));
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let widgets = objects(&cluster, &widget);
    // Twice: a kind may come back under its name.
    for _ in 0..2 {
        define(&cluster.client, &widget).await;
        let own = create(&widgets, &widget, named("owner", None)).await;
        let reference = owner("example.com/v1", "Widget", "owner", &own.uid().unwrap());
        cluster.create::<ConfigMap>("default", named("owned", Some(reference))).await;
        // Of what was never seen nobody can say that it is gone.
        let stray = owner("v1", "ConfigMap", "never", "no-such-uid");
        create(&widgets, &widget, named("stray", Some(stray))).await;
        gone(&widgets, "stray").await;
        definitions.delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
        gone(&definitions, "widgets.example.com").await;
        gone(&maps, "owned").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_a_kind_is_followed_in_place_of_the_first() {
    let cluster = Cluster::start(&[]).await;
    let (old, new) = (kind("v1", "Widget"), kind("v2", "Widget"));
    define(&cluster.client, &old).await;
    let map: ConfigMap = cluster.create("default", named("owner", None)).await;
    let reference = owner("v1", "ConfigMap", "owner", &map.uid().unwrap());
    create(&objects(&cluster, &old), &old, named("before", Some(reference.clone()))).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let versions = json!([
        {"name": "v1", "served": false, "storage": false, "schema": schema},
        {"name": "v2", "served": true, "storage": true, "schema": schema},
    ]);
    let patch = Patch::Merge(json!({"spec": {"versions": versions}}));
    definitions.patch("widgets.example.com", &PatchParams::default(), &patch).await.unwrap();
    let widgets = objects(&cluster, &new);
    eventually("the new version", || async { widgets.list(&Default::default()).await.ok() }).await;
    create(&widgets, &new, named("after", Some(reference))).await;
    cluster.api::<ConfigMap>("default").delete("owner", &DeleteParams::default()).await.unwrap();
    gone(&widgets, "before").await;
    gone(&widgets, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_loses_what_only_an_older_version_of_a_group_has() {
    let cluster = Cluster::start(&[]).await;
    let (preferred, old) = (kind("v1", "Widget"), kind("v1beta1", "Gadget"));
    define(&cluster.client, &preferred).await;
    define(&cluster.client, &old).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.create(&PostParams::default(), &object(json!({"metadata": {"name": "n"}}))).await.unwrap();
    let gadgets: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), "n", &old);
    create(&gadgets, &old, named("g", None)).await;
    namespaces.delete("n", &DeleteParams::default()).await.unwrap();
    gone(&namespaces, "n").await;
    assert!(gadgets.get_opt("g").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_in_another_namespace_does_not_keep_an_object() {
    let cluster = Cluster::start(&[]).await;
    let map: ConfigMap = cluster.create("kube-system", named("far", None)).await;
    let reference = owner("v1", "ConfigMap", "far", &map.uid().unwrap());
    cluster.create::<ConfigMap>("default", named("lost", Some(reference))).await;
    gone(&cluster.api::<ConfigMap>("default"), "lost").await;
    let events = cluster.api::<Event>("default");
    let told = eventually("the event", || async {
        let events = events.list(&Default::default()).await.unwrap().items;
        events.into_iter().find(|event| event.reason.as_deref() == Some("OwnerRefInvalidNamespace"))
    });
    let message = told.await.message.unwrap();
    assert!(message.ends_with("does not exist in namespace \"default\""), "{message}");
    assert!(cluster.api::<ConfigMap>("kube-system").get_opt("far").await.unwrap().is_some());
}
