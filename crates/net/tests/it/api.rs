//! An API server of a few lines: lists and watches of what a test puts into it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use serde_json::{Value, json};
use tokio::sync::mpsc;

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Default)]
struct State {
    revision: u64,
    /// By collection path below the version, `services`, and by namespace and name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    watchers: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
}

#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<State>>);

impl Api {
    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request.uri())) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces.
    pub(crate) fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.0.lock().unwrap();
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let key = format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]);
        let old = state.objects.entry(plural.to_owned()).or_default().insert(key, object.clone());
        state.tell(plural, if old.is_some() { "MODIFIED" } else { "ADDED" }, &object);
    }

    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.0.lock().unwrap();
        state.revision += 1;
        let key = format!("{}/{}", if namespace.is_empty() { Value::Null } else { json!(namespace) }, json!(name));
        let mut object = state.objects.get_mut(plural).unwrap().remove(&key).unwrap();
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        state.tell(plural, "DELETED", &object);
    }

    fn answer(&self, uri: &http::Uri) -> http::Response<Body> {
        let plural = uri.path().rsplit('/').next().unwrap().to_owned();
        let mut state = self.0.lock().unwrap();
        let query = uri.query().unwrap_or_default();
        if !query.contains("watch=") {
            let items: Vec<&Value> = state.objects.get(&plural).into_iter().flat_map(|all| all.values()).collect();
            let list = json!({
                "kind": "List", "apiVersion": "v1", "items": items,
                "metadata": {"resourceVersion": state.revision.to_string()},
            });
            return http::Response::new(Full::new(Bytes::from(list.to_string())).boxed_unsync());
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
        let from: u64 = from.parse().unwrap();
        for object in state.objects.get(&plural).into_iter().flat_map(|all| all.values()) {
            let revision: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            if revision > from {
                sender.send(event("MODIFIED", object)).unwrap();
            }
        }
        state.watchers.push((plural, sender));
        let frames = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|bytes| (Ok(Frame::data(bytes)), receiver))
        });
        http::Response::new(StreamBody::new(frames.boxed()).boxed_unsync())
    }
}

impl State {
    fn tell(&mut self, plural: &str, kind: &str, object: &Value) {
        let event = event(kind, object);
        self.watchers.retain(|(of, watcher)| of != plural || watcher.send(event.clone()).is_ok());
    }
}

fn event(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}
