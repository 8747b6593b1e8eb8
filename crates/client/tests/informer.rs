//! An informer over a scripted API: list, watch, a watch that is too old, list again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kminik_client::{Change, Informers, ObjectKey, Writes};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What the fake answers, in order, and what it was asked.
struct Script {
    lists: VecDeque<Value>,
    watches: VecDeque<mpsc::UnboundedReceiver<Value>>,
    asked: Vec<String>,
}

fn client(script: Arc<Mutex<Script>>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let mut script = script.lock();
        let uri = request.uri().to_string();
        let watch = uri.contains("watch=true");
        script.asked.push(uri);
        let body = if watch {
            let events = script.watches.pop_front();
            let lines = futures::stream::unfold(events, |events| async {
                let mut events = events?;
                let line = format!("{}\n", events.recv().await?);
                Some((Ok::<_, Infallible>(http_body::Frame::data(bytes::Bytes::from(line))), Some(events)))
            });
            http_body_util::StreamBody::new(lines).boxed_unsync()
        } else {
            http_body_util::Full::from(script.lists.pop_front().expect("a scripted list").to_string()).boxed_unsync()
        };
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    });
    kube::Client::new(service, "default")
}

fn map(name: &str, revision: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": name, "namespace": "n", "uid": format!("uid-{name}"), "resourceVersion": revision.to_string(),
        "managedFields": [{"manager": "m"}], "labels": {"app": name},
    }})
}

fn list(revision: u64, items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": revision.to_string()}, "items": items})
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

#[tokio::test]
async fn follows_list_watch_and_lists_again_when_too_old() {
    let (first, first_events) = mpsc::unbounded_channel();
    let (second, second_events) = mpsc::unbounded_channel();
    let script = Arc::new(Mutex::new(Script {
        lists: [list(10, vec![map("a", 3), map("b", 4)]), list(30, vec![map("c", 25)])].into(),
        watches: [first_events, second_events].into(),
        asked: Vec::new(),
    }));
    let stop = CancellationToken::new();
    let informers = Informers::new(client(script.clone()), stop.clone());
    let maps = informers.get::<ConfigMap>();
    maps.add_index("app", |map| map.metadata.labels.iter().flat_map(|l| l.get("app").cloned()).collect());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    let subscription = maps.subscribe(move |change| {
        let kind = match change {
            Change::Added(_) => "added",
            Change::Updated { .. } => "updated",
            Change::Deleted(_) => "deleted",
        };
        log.lock().push(format!("{kind} {}", ObjectKey::of(change.object().as_ref())));
    });
    assert!(maps.wait_synced().await);
    assert_eq!(maps.seen_revision(), 10);
    assert_eq!(maps.list_in("n").len(), 2);
    assert_eq!(maps.by_index("app", "b").len(), 1);
    assert!(maps.get(&ObjectKey::new("n", "a")).unwrap().metadata.managed_fields.is_none());

    first.send(event("MODIFIED", map("a", 12))).unwrap();
    first.send(event("DELETED", map("b", 13))).unwrap();
    first
        .send(event(
            "BOOKMARK",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "20"}}),
        ))
        .unwrap();
    assert!(maps.wait_revision(20).await);
    assert!(maps.by_index("app", "b").is_empty());

    // A write that the watch has not brought yet keeps its key waiting; the list after the gap brings it.
    let writes = Writes::new();
    let written: ConfigMap = serde_json::from_value(map("c", 25)).unwrap();
    writes.wrote(&"key", &maps, &written);
    assert!(writes.settled(&"key", Duration::from_millis(20)).await.is_err());
    first
        .send(event(
            "ERROR",
            json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}),
        ))
        .unwrap();
    writes.settled(&"key", Duration::from_secs(5)).await.unwrap();
    assert_eq!(*heard.lock(), ["added n/a", "added n/b", "updated n/a", "deleted n/b", "deleted n/a", "added n/c"]);

    drop(subscription);
    second.send(event("DELETED", map("c", 31))).unwrap();
    assert!(maps.wait_revision(31).await);
    assert_eq!(heard.lock().len(), 6, "no change is told after the subscription ended");
    let asked = script.lock().asked.clone();
    assert!(asked[1].contains("resourceVersion=10") && asked[1].contains("allowWatchBookmarks=true"), "{asked:?}");
    assert!(asked[3].contains("resourceVersion=30"), "{asked:?}");
    stop.cancel();
    assert!(!maps.wait_revision(1000).await);
}
