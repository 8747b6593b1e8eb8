//! An API server in memory: get, list, watch, create, patch and delete of anything, without defaults or checks.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<String, Value>,
    /// (revision, type, path, object)
    history: Vec<(u64, &'static str, String, Value)>,
    events: Vec<Value>,
}

pub(crate) struct FakeApi {
    state: Mutex<State>,
    changes: broadcast::Sender<()>,
}

impl FakeApi {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changes: broadcast::channel(1024).0 })
    }

    pub(crate) fn client(self: &Arc<Self>) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces what is at a path; fills in metadata.
    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state.lock();
        let old = state.objects.get(path).cloned();
        let parts: Vec<&str> = path.split('/').collect();
        state.revision += 1;
        let revision = state.revision;
        let meta = &mut object["metadata"];
        meta["name"] = json!(parts.last());
        if let Some(at) = parts.iter().position(|p| *p == "namespaces").filter(|at| at + 2 < parts.len()) {
            meta["namespace"] = json!(parts[at + 1]);
        }
        match &old {
            Some(old) => meta["uid"] = old["metadata"]["uid"].clone(),
            None => meta["uid"] = json!(format!("00000000-0000-0000-0000-{revision:012}")),
        }
        if meta["generation"].is_null() {
            meta["generation"] = json!(1);
        }
        meta["resourceVersion"] = json!(revision.to_string());
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] =
                json!(k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        state.objects.insert(path.into(), object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        state.history.push((revision, kind, path.into(), object.clone()));
        drop(state);
        let _ = self.changes.send(());
        object
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    /// Paths that begin so.
    pub(crate) fn paths(&self, prefix: &str) -> Vec<String> {
        self.state.lock().objects.keys().filter(|path| path.starts_with(prefix)).cloned().collect()
    }

    /// Asks for a graceful deletion, as a user does.
    pub(crate) fn delete(&self, path: &str, grace: i64) {
        let Some(mut object) = self.get(path) else { return };
        let at = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        object["metadata"]["deletionTimestamp"] = json!(at);
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.put(path, object);
    }

    /// Takes an object away at once.
    pub(crate) fn remove(&self, path: &str) -> Option<Value> {
        let mut state = self.state.lock();
        let mut object = state.objects.remove(path)?;
        state.revision += 1;
        let revision = state.revision;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        state.history.push((revision, "DELETED", path.into(), object.clone()));
        drop(state);
        let _ = self.changes.send(());
        Some(object)
    }

    /// Waits until an event of that reason was written.
    pub(crate) async fn wait_event(&self, reason: &str) -> Value {
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                if let Some(event) = self.state.lock().events.iter().find(|e| e["reason"] == reason).cloned() {
                    return event;
                }
                let _ = changes.recv().await;
            }
        };
        match tokio::time::timeout(super::BOUND, wait).await {
            Ok(event) => event,
            Err(_) => panic!("no event {reason}: {:?}", self.state.lock().events),
        }
    }

    /// Waits until what is at the path fulfils a condition.
    pub(crate) async fn wait(&self, path: &str, what: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                let now = self.get(path);
                if what(now.as_ref()) {
                    return now;
                }
                let _ = changes.recv().await;
            }
        };
        match tokio::time::timeout(super::BOUND, wait).await {
            Ok(found) => found,
            Err(_) => panic!("{path} did not get there: {:#}", self.get(path).unwrap_or_default()),
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_end_matches('?').to_string();
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (base, sub) = match path.strip_suffix("/status").or(path.strip_suffix("/token")) {
            Some(base) => (base.to_string(), path[base.len() + 1..].to_string()),
            None => (path.clone(), String::new()),
        };
        match parts.method {
            Method::GET if query.contains_key("watch") => self.watch(&path, &query),
            Method::GET => match self.get(&path) {
                Some(object) => reply(200, &object),
                None if is_collection(&path) => {
                    let state = self.state.lock();
                    let items: Vec<&Value> = state
                        .objects
                        .iter()
                        .filter(|(at, object)| selected(&path, at, object, &query))
                        .map(|(_, o)| o)
                        .collect();
                    reply(
                        200,
                        &json!({"kind": "List", "metadata": {"resourceVersion": state.revision.to_string()}, "items": items}),
                    )
                }
                None => missing(&path),
            },
            Method::POST if sub == "token" => {
                let at = k8s_openapi::jiff::Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_hours(1);
                let at = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                reply(
                    201,
                    &json!({"spec": body["spec"], "status": {"token": format!("token-of-{base}"), "expirationTimestamp": at}}),
                )
            }
            Method::POST => {
                if path.ends_with("/events") {
                    self.state.lock().events.push(body.clone());
                }
                let name =
                    body["metadata"]["name"].as_str().map_or_else(|| format!("n{}", rand::random::<u32>()), Into::into);
                let path = format!("{path}/{name}");
                if self.get(&path).is_some() {
                    return failure(409, "AlreadyExists");
                }
                reply(201, &self.put(&path, body))
            }
            Method::PATCH => {
                let Some(mut object) = self.get(&base) else { return missing(&base) };
                let uid = &body["metadata"]["uid"];
                if uid.is_string() && *uid != object["metadata"]["uid"] {
                    return failure(409, "Conflict");
                }
                if sub == "status" {
                    merge(&mut object["status"], &body["status"]);
                } else {
                    merge(&mut object, &body);
                }
                reply(200, &self.put(&base, object))
            }
            Method::DELETE => match self.remove(&base) {
                Some(object) => reply(200, &object),
                None => missing(&base),
            },
            _ => failure(405, "MethodNotAllowed"),
        }
    }

    fn watch(self: Arc<Self>, path: &str, query: &BTreeMap<String, String>) -> Response<Answer> {
        let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let (path, query) = (path.to_string(), query.clone());
        let changes = self.changes.subscribe();
        let stream = futures::stream::unfold((from, changes, self), move |(from, mut changes, api)| {
            let (path, query) = (path.clone(), query.clone());
            async move {
                loop {
                    let next = {
                        let state = api.state.lock();
                        state.history.iter().find(|(at, _, _, _)| *at > from).cloned()
                    };
                    if let Some((at, kind, object_path, object)) = next {
                        let line = if selected(&path, &object_path, &object, &query) {
                            format!("{}\n", json!({"type": kind, "object": object}))
                        } else {
                            String::new()
                        };
                        return Some((Ok(Frame::data(Bytes::from(line))), (at, changes, api)));
                    }
                    let _ = changes.recv().await;
                }
            }
        });
        let stream = stream.filter(|frame: &Result<Frame<Bytes>, Infallible>| {
            let full = frame.as_ref().is_ok_and(|f| f.data_ref().is_some_and(|d| !d.is_empty()));
            async move { full }
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)))
    }
}

fn is_collection(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    ["pods", "services", "configmaps", "secrets", "nodes"].contains(&last)
}

/// Whether an object belongs to a collection (also of all namespaces) and its field selector.
fn selected(collection: &str, path: &str, object: &Value, query: &BTreeMap<String, String>) -> bool {
    let Some((parent, _)) = path.rsplit_once('/') else { return false };
    let plural = collection.rsplit('/').next().unwrap_or_default();
    let here =
        parent == collection || (!collection.contains("/namespaces/") && parent.rsplit('/').next() == Some(plural));
    let fields = query.get("fieldSelector").map(String::as_str).unwrap_or_default();
    here && fields.split(',').filter(|f| !f.is_empty()).all(|field| {
        let (name, value) = field.split_once('=').unwrap();
        let found = name.split('.').fold(object, |at, part| &at[part]);
        found.as_str() == Some(value.trim_start_matches('='))
    })
}

/// Strategic enough for what the kubelet sends.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match (key.as_str(), value) {
            (_, Value::Null) => {
                target.as_object_mut().unwrap().remove(key);
            }
            ("conditions", Value::Array(list)) => merge_list(&mut target[key], list, "type"),
            ("podIPs" | "hostIPs", Value::Array(list)) => merge_list(&mut target[key], list, "ip"),
            (_, Value::Object(_)) => merge(&mut target[key], value),
            _ => target[key] = value.clone(),
        }
    }
}

fn merge_list(target: &mut Value, list: &[Value], by: &str) {
    if !target.is_array() {
        *target = json!([]);
    }
    let items = target.as_array_mut().unwrap();
    for value in list {
        let at = items.iter().position(|item| item[by] == value[by]);
        match (at, value["$patch"].as_str()) {
            (Some(at), Some("delete")) => drop(items.remove(at)),
            (None, Some(_)) => {}
            (Some(at), _) => merge(&mut items[at], value),
            (None, _) => {
                items.push(json!({}));
                merge(items.last_mut().unwrap(), value);
            }
        }
    }
}

fn reply(code: u16, object: &Value) -> Response<Answer> {
    let body = Full::new(Bytes::from(object.to_string()));
    Response::builder().status(code).header("content-type", "application/json").body(body.boxed_unsync()).unwrap()
}

fn failure(code: u16, reason: &str) -> Response<Answer> {
    reply(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code}),
    )
}

fn missing(path: &str) -> Response<Answer> {
    let _ = path;
    failure(404, "NotFound")
}
