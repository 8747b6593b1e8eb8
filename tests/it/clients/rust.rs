//! kube-rs against a cluster: what its own examples do, with what must hold. Each function is one of its idioms.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::events::v1::Event as Recorded;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{
    AttachParams, DeleteParams, DynamicObject, EvictParams, ListParams, LogParams, Object, Patch, PatchParams,
    PostParams, Preconditions, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{GroupVersionKind, PartialObjectMeta, PartialObjectMetaExt, Status};
use kube::discovery::{ApiResource, Discovery, Scope, pinned_kind, verbs};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::wait::{Condition as _, await_condition, conditions, delete::delete_and_finalize};
use kube::runtime::{Controller, WatchStreamExt, finalizer, watcher};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::Cluster;

/// A step that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    client: Client,
    ns: String,
}

impl World {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.ns)
    }
}

pub(super) fn idioms(cluster: &Cluster) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        // A refused eviction would be asked for again and again.
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let world = World { client: client.clone(), ns: format!("rust-{}", std::process::id()) };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &typed(json!({"metadata": {"name": world.ns}}))).await.unwrap();
        let account = await_condition(world.api::<ServiceAccount>(), "default", conditions::is_created());
        within("the default account", account).await.unwrap();
        within("objects", objects(&world)).await;
        within("applying", applying(&world)).await;
        within("watching", watching(&world)).await;
        within("discovery", discovery(&world)).await;
        within("who am I", reviews(&world)).await;
        within("a lease", lease(&world)).await;
        within("pods", pods(&world)).await;
        within("evicting", evicting(&world)).await;
        within("scaling", scaling(&world)).await;
        within("a custom kind and its controller", controller(&world)).await;
        namespaces.delete(&world.ns, &DeleteParams::background()).await.unwrap();
    });
}

async fn within<T>(what: &str, step: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, step).await {
        Ok(done) => done,
        Err(_) => panic!("took longer than a minute: {what}"),
    }
}

fn typed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn map(name: &str, data: Value) -> ConfigMap {
    typed(json!({"metadata": {"name": name, "labels": {"of": "rust"}}, "data": data}))
}

/// The Status of a call that must fail.
fn refused<T: std::fmt::Debug>(answer: kube::Result<T>) -> Status {
    match answer {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("not refused: {other:?}"),
    }
}

async fn objects(world: &World) {
    let maps = world.api::<ConfigMap>();
    let mut made = maps.create(&PostParams::default(), &map("typed", json!({"a": "1"}))).await.unwrap();
    let old = made.clone();
    made.data.get_or_insert_default().insert("b".into(), "2".into());
    let replaced = maps.replace("typed", &PostParams::default(), &made).await.unwrap();
    assert_eq!(replaced.data.unwrap().len(), 2);
    let status = refused(maps.replace("typed", &PostParams::default(), &old).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let again = maps.create(&PostParams::default(), &map("typed", json!({}))).await;
    assert_eq!(refused(again).reason, "AlreadyExists");
    assert!(maps.get_opt("none").await.unwrap().is_none());
    assert_eq!(refused(maps.get("none").await).reason, "NotFound");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &map("dry", json!({}))).await.unwrap();
    assert!(maps.get_opt("dry").await.unwrap().is_none());
    for i in 0..5 {
        maps.create(&PostParams::default(), &map(&format!("page-{i}"), json!({}))).await.unwrap();
    }
    let mut page = ListParams::default().labels("of=rust").limit(2);
    let mut names = Vec::new();
    loop {
        let list = maps.list(&page).await.unwrap();
        names.extend(list.items.iter().map(|own| own.name_any()));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["page-0", "page-1", "page-2", "page-3", "page-4", "typed"]);
    let slim: PartialObjectMeta<ConfigMap> = maps.get_metadata("typed").await.unwrap();
    assert_eq!(slim.types.unwrap().kind, "PartialObjectMetadata");
    assert_eq!(slim.metadata.uid, old.metadata.uid);
    assert_eq!(maps.list_metadata(&ListParams::default().labels("of=rust")).await.unwrap().items.len(), 6);
    let other = Preconditions { uid: Some("another".into()), ..Preconditions::default() };
    assert_eq!(refused(maps.delete("typed", &DeleteParams::default().preconditions(other)).await).code, 409);
    assert!(maps.delete("typed", &DeleteParams::default()).await.unwrap().is_right(), "gone at once");
    let all = maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("of=rust")).await.unwrap();
    assert!(all.left().is_none_or(|list| list.items.len() == 5));
    assert!(maps.list(&ListParams::default().labels("of=rust")).await.unwrap().items.is_empty());
}

async fn applying(world: &World) {
    let maps = world.api::<ConfigMap>();
    let body = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": value}});
    let made = maps.patch("applied", &PatchParams::apply("one"), &Patch::Apply(body("1"))).await.unwrap();
    let managers = made.metadata.managed_fields.unwrap();
    assert_eq!((managers[0].manager.as_deref(), managers[0].operation.as_deref()), (Some("one"), Some("Apply")));
    let status = refused(maps.patch("applied", &PatchParams::apply("two"), &Patch::Apply(body("2"))).await);
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    assert_eq!(status.details.unwrap().causes[0].field, ".data.a");
    let forced = maps.patch("applied", &PatchParams::apply("two").force(), &Patch::Apply(body("2"))).await.unwrap();
    assert_eq!(forced.data.unwrap()["a"], "2");
    let merged =
        maps.patch("applied", &PatchParams::default(), &Patch::Merge(json!({"data": {"b": "1"}}))).await.unwrap();
    assert_eq!(merged.data.unwrap().len(), 2);
    // Metadata alone is applied as a PartialObjectMetadata.
    let labels = kube::core::ObjectMeta { labels: Some([("tier".into(), "x".into())].into()), ..Default::default() };
    let slim = labels.into_request_partial::<ConfigMap>();
    let slim = maps.patch_metadata("applied", &PatchParams::apply("labels"), &Patch::Apply(&slim)).await.unwrap();
    assert_eq!(slim.labels()["tier"], "x");
    maps.delete("applied", &DeleteParams::default()).await.unwrap();
}

async fn watching(world: &World) {
    let maps = world.api::<ConfigMap>();
    // The plain call.
    let from = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    maps.create(&PostParams::default(), &map("seen", json!({}))).await.unwrap();
    let mut events = maps.watch(&WatchParams::default().labels("of=rust"), &from).await.unwrap().boxed();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(own)) if own.name_any() == "seen"));
    // A reflector's store, by a list and a watch and by a streamed list.
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let (reader, writer) = reflector::store();
        let objects = watcher(maps.clone(), config.labels("of=rust")).default_backoff();
        let mut applied = objects.reflect(writer).applied_objects().boxed();
        assert_eq!(applied.try_next().await.unwrap().unwrap().name_any(), "seen");
        let more = tokio::spawn(async move { while let Some(Ok(_)) = applied.next().await {} });
        reader.wait_until_ready().await.unwrap();
        assert!(reader.get(&ObjectRef::new("seen").within(&world.ns)).is_some());
        more.abort();
    }
    let metadata = world.api::<PartialObjectMeta<ConfigMap>>();
    let mut slim = watcher(metadata, watcher::Config::default().labels("of=rust")).touched_objects().boxed();
    assert_eq!(slim.try_next().await.unwrap().unwrap().name_any(), "seen");
    delete_and_finalize(maps.clone(), "seen", &DeleteParams::default()).await.unwrap();
    assert_eq!(slim.try_next().await.unwrap().unwrap().name_any(), "seen", "told of its end");
}

async fn discovery(world: &World) {
    for found in [
        Discovery::new(world.client.clone()).run().await.unwrap(),
        Discovery::new(world.client.clone()).run_aggregated().await.unwrap(),
    ] {
        let (kind, can) = found.resolve_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment")).unwrap();
        assert_eq!((kind.plural.as_str(), can.scope.clone()), ("deployments", Scope::Namespaced));
        assert!(can.supports_operation(verbs::WATCH) && can.subresources.iter().any(|(own, _)| own.plural == "scale"));
        assert!(found.groups_alphabetical().iter().any(|group| group.name() == "rbac.authorization.k8s.io"));
    }
    let (kind, _) = pinned_kind(&world.client, &GroupVersionKind::gvk("", "v1", "ConfigMap")).await.unwrap();
    let dynamic: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.ns, &kind);
    let object = DynamicObject::new("dynamic", &kind).data(json!({"data": {"a": "1"}}));
    let made = dynamic.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(made.data["data"]["a"], "1");
    dynamic.delete("dynamic", &DeleteParams::default()).await.unwrap();
    assert_eq!(world.client.apiserver_version().await.unwrap().minor, "35");
}

async fn reviews(world: &World) {
    let api: Api<SelfSubjectReview> = Api::all(world.client.clone());
    let me = api.create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
    let groups = me.status.unwrap().user_info.unwrap().groups.unwrap();
    assert!(groups.contains(&"system:authenticated".to_owned()), "{groups:?}");
    let api: Api<SelfSubjectAccessReview> = Api::all(world.client.clone());
    let asked = typed(json!({"spec": {"resourceAttributes": {"verb": "delete", "resource": "nodes"}}}));
    assert!(api.create(&PostParams::default(), &asked).await.unwrap().status.unwrap().allowed);
    let accounts = world.api::<ServiceAccount>();
    let asked = typed(json!({"spec": {"audiences": []}}));
    let token = accounts.create_token_request("default", &PostParams::default(), &asked).await.unwrap();
    assert_eq!(token.status.unwrap().token.split('.').count(), 3);
}

async fn lease(world: &World) {
    let leases = world.api::<Lease>();
    let now = || MicroTime(Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap());
    let mut lease: Lease =
        typed(json!({"metadata": {"name": "lock"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 5}}));
    lease.spec.as_mut().unwrap().renew_time = Some(now());
    let first = leases.create(&PostParams::default(), &lease).await.unwrap();
    assert_eq!(first.spec.as_ref().unwrap().renew_time, lease.spec.unwrap().renew_time, "to the microsecond");
    let mut renewed = first.clone();
    renewed.spec.as_mut().unwrap().renew_time = Some(now());
    leases.replace("lock", &PostParams::default(), &renewed).await.unwrap();
    assert_eq!(refused(leases.replace("lock", &PostParams::default(), &first).await).code, 409, "one renews it");
}

fn pod(name: &str, script: &str) -> Pod {
    typed(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [{
            "name": "main", "image": "busybox:latest", "imagePullPolicy": "IfNotPresent", "stdin": true,
            "command": ["sh", "-c", script]}]},
    }))
}

async fn pods(world: &World) {
    let pods = world.api::<Pod>();
    pods.create(&PostParams::default(), &pod("box", "echo begun; httpd -p 8080 -h /etc; cat")).await.unwrap();
    await_condition(pods.clone(), "box", conditions::is_pod_running()).await.unwrap();

    let speaking = AttachParams::default().stdin(true);
    let script = "read word; echo got $word; echo bad >&2; exit 3";
    let mut process = pods.exec("box", ["sh", "-c", script], &speaking).await.unwrap();
    process.stdin().unwrap().write_all(b"this\n").await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    process.stdout().unwrap().read_to_string(&mut out).await.unwrap();
    process.stderr().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("got this\n", "bad\n"));
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("3"));
    process.join().await.unwrap();

    let mut attached = pods.attach("box", &speaking).await.unwrap();
    let mut lines = tokio::io::BufReader::new(attached.stdout().unwrap());
    attached.stdin().unwrap().write_all(b"echoed\n").await.unwrap();
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line).await.unwrap();
    assert_eq!(line, "echoed\n");
    attached.abort();

    let mut forwarded = pods.portforward("box", &[8080]).await.unwrap();
    let mut stream = forwarded.take_stream(8080).unwrap();
    stream.write_all(b"GET /passwd HTTP/1.0\r\n\r\n").await.unwrap();
    let mut page = Vec::new();
    stream.read_to_end(&mut page).await.unwrap();
    assert!(String::from_utf8_lossy(&page).contains("root:x:0:0"));
    // Joined it would answer a close with a close of its own, and complain.
    forwarded.abort();

    assert!(pods.logs("box", &LogParams::default()).await.unwrap().starts_with("begun\n"));
    let followed = LogParams { follow: true, tail_lines: Some(1), ..LogParams::default() };
    let mut lines = pods.log_stream("box", &followed).await.unwrap().lines();
    assert_eq!(lines.try_next().await.unwrap().unwrap(), "echoed");
    let phase = pods.get("box").await.unwrap().status.unwrap().phase;
    assert_eq!(phase.as_deref(), Some("Running"), "who detaches leaves its standard input open");
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = pods.get("box").await.unwrap().spec.unwrap().node_name.unwrap();
    assert_eq!(nodes.get(&node).await.unwrap().name_any(), node);
}

async fn evicting(world: &World) {
    let (pods, budgets) = (world.api::<Pod>(), world.api::<PodDisruptionBudget>());
    let budget =
        json!({"metadata": {"name": "one"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "box"}}}});
    budgets.create(&PostParams::default(), &typed(budget)).await.unwrap();
    let counted = |own: Option<&PodDisruptionBudget>| {
        own.and_then(|own| own.status.as_ref()).is_some_and(|own| own.current_healthy == 1)
    };
    await_condition(budgets.clone(), "one", counted).await.unwrap();
    let status = refused(pods.evict("box", &EvictParams::default()).await);
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    budgets.delete("one", &DeleteParams::default()).await.unwrap();
    let uid = pods.get("box").await.unwrap().uid().unwrap();
    pods.evict("box", &EvictParams::default()).await.unwrap();
    await_condition(pods, "box", conditions::is_deleted(&uid)).await.unwrap();
}

async fn scaling(world: &World) {
    let deployments = world.api::<Deployment>();
    let template = pod("", "cat");
    let mut template = serde_json::to_value(template.spec).unwrap();
    template["restartPolicy"] = json!("Always");
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": template}}});
    deployments.create(&PostParams::default(), &typed(deployment)).await.unwrap();
    let one = Patch::Merge(json!({"spec": {"replicas": 1}}));
    let scale = deployments.patch_scale("web", &PatchParams::default(), &one).await;
    assert_eq!(scale.unwrap().spec.unwrap().replicas, Some(1));
    // Of no replicas it was complete before.
    let ready = |own: Option<&Deployment>| {
        own.and_then(|own| own.status.as_ref()).is_some_and(|status| status.ready_replicas == Some(1))
    };
    await_condition(deployments.clone(), "web", conditions::is_deployment_completed().and(ready)).await.unwrap();
    assert_eq!(deployments.get_scale("web").await.unwrap().status.unwrap().replicas, 1);
    deployments.restart("web").await.unwrap();
    let template = deployments.get("web").await.unwrap().spec.unwrap().template;
    assert!(template.metadata.unwrap().annotations.unwrap().contains_key("kube.kubernetes.io/restartedAt"));
    deployments.delete("web", &DeleteParams::foreground()).await.unwrap();
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Settings {
    replicas: i32,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Outcome {
    done: bool,
}

/// What `derive(CustomResource)` makes, but for its static kind.
type Thing = Object<Settings, Outcome>;

/// A controller as the examples have it: it holds its object by a finalizer, applies what the object owns, says so in an event
/// and in the status, and cleans up behind it.
async fn controller(world: &World) {
    let group = format!("g{}.rust.test", std::process::id());
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(&group, "v1", "Thing"), "things");
    let definitions: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    let name = format!("things.{group}");
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["replicas"], "properties": {"replicas": {"type": "integer", "minimum": 0}}},
        "status": {"type": "object", "properties": {"done": {"type": "boolean"}}}}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}});
    let definition: CustomResourceDefinition = typed(json!({
        "metadata": {"name": name},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"}, "versions": [version]}}));
    definitions.patch(&name, &PatchParams::apply("rust"), &Patch::Apply(&definition)).await.unwrap();
    await_condition(definitions.clone(), &name, conditions::is_crd_established()).await.unwrap();

    let things: Api<Thing> = Api::namespaced_with(world.client.clone(), &world.ns, &kind);
    let bad = things.create(&PostParams::default(), &Thing::new("bad", &kind, Settings { replicas: -1 })).await;
    assert_eq!(refused(bad).details.unwrap().causes[0].field, "spec.replicas");
    things.create(&PostParams::default(), &Thing::new("a", &kind, Settings { replicas: 2 })).await.unwrap();

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let cleaned = Arc::new(AtomicUsize::new(0));
    let context = Arc::new((world.client.clone(), kind.clone(), cleaned.clone()));
    let running = Controller::new_with(things.clone(), watcher::Config::default(), kind.clone())
        .owns(world.api::<ConfigMap>(), watcher::Config::default())
        .graceful_shutdown_on(async move { _ = stopped.await })
        .run(reconcile, |_, _: &finalizer::Error<kube::Error>, _| Action::requeue(Duration::from_secs(1)), context);
    let running = tokio::spawn(running.for_each(|_| async {}));

    let done = |own: Option<&Thing>| own.and_then(|own| own.status.as_ref()).is_some_and(|own| own.done);
    await_condition(things.clone(), "a", done).await.unwrap();
    let maps = world.api::<ConfigMap>();
    let owned = maps.get("a").await.unwrap();
    assert_eq!(owned.data.as_ref().unwrap()["replicas"], "2");
    // What it owns comes back, and goes with it.
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    await_condition(maps.clone(), "a", conditions::is_deleted(&owned.uid().unwrap())).await.unwrap();
    await_condition(maps.clone(), "a", conditions::is_created()).await.unwrap();
    things.patch_scale("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}}))).await.unwrap();
    await_condition(maps.clone(), "a", |own: Option<&ConfigMap>| {
        own.and_then(|own| own.data.as_ref()).is_some_and(|data| data["replicas"] == "3")
    })
    .await
    .unwrap();
    let events = world.api::<Recorded>().list(&ListParams::default().fields("reason=Reconciled")).await.unwrap();
    assert!(events.items.iter().any(|event| event.regarding.as_ref().and_then(|own| own.name.as_deref()) == Some("a")));
    let uid = maps.get("a").await.unwrap().uid().unwrap();
    delete_and_finalize(things, "a", &DeleteParams::default()).await.unwrap();
    assert_eq!(cleaned.load(Ordering::SeqCst), 1);
    await_condition(maps, "a", conditions::is_deleted(&uid)).await.unwrap();
    stop.send(()).unwrap();
    running.await.unwrap();
    definitions.delete(&name, &DeleteParams::default()).await.unwrap();
}

type Context = (Client, ApiResource, Arc<AtomicUsize>);

async fn reconcile(thing: Arc<Thing>, context: Arc<Context>) -> Result<Action, finalizer::Error<kube::Error>> {
    let (client, kind, cleaned) = (&context.0, &context.1, &context.2);
    let ns = thing.namespace().unwrap();
    let things: Api<Thing> = Api::namespaced_with(client.clone(), &ns, kind);
    let ours = format!("{}/finalizer", kind.group);
    let work = |event: finalizer::Event<Thing>| async {
        match event {
            finalizer::Event::Apply(thing) => {
                let owner = thing.controller_owner_ref(kind).unwrap();
                let owned = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": thing.name_any(), "ownerReferences": [owner]},
                    "data": {"replicas": thing.spec.replicas.to_string()},
                });
                let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &ns);
                maps.patch(&thing.name_any(), &PatchParams::apply("rust").force(), &Patch::Apply(owned)).await?;
                let recorder = Recorder::new(client.clone(), Reporter::from("rust-controller"));
                let event = Event {
                    type_: EventType::Normal,
                    reason: "Reconciled".into(),
                    note: Some("is as it should be".into()),
                    action: "Reconcile".into(),
                    secondary: None,
                };
                recorder.publish(&event, &thing.object_ref(kind)).await?;
                let status = json!({"apiVersion": kind.api_version, "kind": kind.kind, "status": {"done": true}});
                things
                    .patch_status(&thing.name_any(), &PatchParams::apply("rust").force(), &Patch::Apply(status))
                    .await?;
                Ok(Action::await_change())
            }
            finalizer::Event::Cleanup(_) => {
                cleaned.fetch_add(1, Ordering::SeqCst);
                Ok(Action::await_change())
            }
        }
    };
    finalizer::finalizer(&things, &ours, thing, work).await
}
