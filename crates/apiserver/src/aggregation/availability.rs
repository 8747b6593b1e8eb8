//! Whether extension servers can be asked: each is checked when something it depends on changes, and from time to time,
//! for a server that dies tells nobody. A check also fetches what the server says of itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::header::{ACCEPT, HeaderValue};
use http::{Request, StatusCode, Uri};
use jiff::Timestamp;
use kminik_meta::{Object, StatusError, time};
use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Fetched, GROUP, PLURAL, Remote, convert, is_available};
use crate::Server;
use crate::auth::{MASTERS, UserInfo, request_header};
use crate::health::Step;
use crate::http::accept::JSON;
use crate::outbound::{Bounds, CallError, Place};
use crate::registry::{Change, Written};
use crate::storage::cache::Cache;
use crate::storage::key;

const SERVICES: &str = "core/services";
const SLICES: &str = "discovery.k8s.io/endpointslices";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// A server that answered is asked again after this time.
const INTERVAL: Duration = Duration::from_secs(30);
/// One that did not is asked again after this time, doubling up to the interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Changes that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(50);
/// Endpoints that are tried in one check.
const ATTEMPTS: usize = 3;
const CHECK: Bounds = Bounds { timeout: Duration::from_secs(5), body: 8 << 20 };
const DOCUMENT: Bounds = Bounds { timeout: Duration::from_secs(10), body: 32 << 20 };

/// What the condition `Available` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

/// When a server is asked again.
struct Schedule {
    /// Of all that the last check depended on.
    seen: u64,
    due: Instant,
    retry: Duration,
}

/// Checks all extension servers until cancelled.
pub(crate) async fn follow(server: Arc<Server>, stop: CancellationToken) {
    let cache = server.registry().cache().clone();
    let mut table = server.registry().subscribe();
    let mut services = cache.resource(SERVICES).subscribe();
    let mut slices = cache.resource(SLICES).subscribe();
    let mut schedules: HashMap<String, Schedule> = HashMap::new();
    server.health().reached(Step::Availability);
    loop {
        let remotes = server.registry().table().remotes().to_vec();
        schedules.retain(|name, _| remotes.iter().any(|remote| remote.name == *name));
        let now = Instant::now();
        let due = remotes.iter().filter(|remote| {
            let seen = dependencies(&cache, remote);
            schedules.get(&remote.name).is_none_or(|schedule| schedule.seen != seen || schedule.due <= now)
        });
        let (server, cache) = (&server, &cache);
        let checked = join_all(due.map(|remote| async move {
            let seen = dependencies(cache, remote);
            (remote.name.clone(), seen, check(server, remote).await)
        }));
        let Some(checked) = stop.run_until_cancelled(checked).await else { return };
        for (name, seen, passed) in checked {
            let before = schedules.get(&name).map_or(FIRST_RETRY, |schedule| schedule.retry);
            let (wait, retry) = if passed { (INTERVAL, FIRST_RETRY) } else { (before, (before * 2).min(INTERVAL)) };
            schedules.insert(name, Schedule { seen, due: Instant::now() + wait, retry });
        }
        let next = schedules.values().map(|schedule| schedule.due).min();
        let timer = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // Without extension servers nothing but the table matters.
        let any = !remotes.is_empty();
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            changed = table.changed() => changed.is_err(),
            changed = services.changed(), if any => changed.is_err(),
            changed = slices.changed(), if any => changed.is_err(),
            () = timer => false,
        };
        if ended || stop.run_until_cancelled(tokio::time::sleep(SETTLE)).await.is_none() {
            return;
        }
    }
}

/// A number that changes with the peer, its service and the service's endpoints.
fn dependencies(cache: &Cache, remote: &Remote) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    remote.peer.hash(&mut hasher);
    if let Place::Service { namespace, name, .. } = &remote.peer.place {
        let services = cache.snapshot(SERVICES);
        services.get(&key::object(SERVICES, namespace, name)).map(|entry| entry.revision).hash(&mut hasher);
        for entry in cache.snapshot(SLICES).range(&key::namespace(SLICES, namespace), None) {
            if entry.labels().get(SERVICE_LABEL) == Some(name) {
                entry.revision.hash(&mut hasher);
            }
        }
    }
    hasher.finish()
}

/// Checks one server and writes the verdict; whether it can be asked.
async fn check(server: &Arc<Server>, remote: &Remote) -> bool {
    let cache = server.registry().cache();
    let outcome = match endpoints(cache, remote) {
        Err(verdict) => Err(verdict),
        Ok(()) => fetch(server, remote).await,
    };
    let before = remote.documents.get();
    let verdict = match outcome {
        Ok(fetched) => {
            remote.documents.set(fetched);
            Verdict { status: "True", reason: "Passed", message: "all checks passed".into() }
        }
        Err(verdict) => {
            remote.documents.set(Fetched { fresh: false, ..(*before).clone() });
            verdict
        }
    };
    if let Err(error) = write(server, &remote.name, &verdict).await {
        tracing::warn!(error = &error as &dyn std::error::Error, name = remote.name, "APIService cannot be updated");
        return false;
    }
    verdict.status == "True"
}

/// What can be said without asking the server.
fn endpoints(cache: &Cache, remote: &Remote) -> Result<(), Verdict> {
    let Place::Service { namespace, name, port } = &remote.peer.place else { return Ok(()) };
    let no = |reason, message: String| Err(Verdict { status: "False", reason, message });
    let services = cache.snapshot(SERVICES);
    let service = services.get(&key::object(SERVICES, namespace, name)).and_then(|entry| entry.object().ok());
    let Some(service) = service else {
        return no("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"));
    };
    if service.str(&["spec", "type"]).unwrap_or("ClusterIP") != "ClusterIP" {
        return Ok(());
    }
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut ports = service.array(&["spec", "ports"]).iter();
    let Some(port_name) = ports
        .find(|row| row.get("port").and_then(Value::as_u64) == Some(u64::from(*port)))
        .map(|row| text(row, "name"))
    else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return no("ServicePortError", message);
    };
    let snapshot = cache.snapshot(SLICES);
    let slices: Vec<Arc<Object>> = snapshot
        .range(&key::namespace(SLICES, namespace), None)
        .filter(|entry| entry.labels().get(SERVICE_LABEL) == Some(name))
        .filter_map(|entry| entry.object().ok())
        .collect();
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return no("EndpointsNotFound", message);
    }
    let serves = |slice: &Arc<Object>| {
        let ready = |endpoint: &Value| endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
        slice.array(&["endpoints"]).iter().any(ready)
            && slice.array(&["ports"]).iter().any(|row| text(row, "name") == port_name && row.get("port").is_some())
    };
    if slices.iter().any(serves) {
        return Ok(());
    }
    let message =
        format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}");
    no("MissingEndpoints", message)
}

/// Asks the server for its discovery document, and, if that is there, for what else it says of itself.
async fn fetch(server: &Server, remote: &Remote) -> Result<Fetched, Verdict> {
    let path = match remote.group.as_str() {
        "" => format!("/api/{}", remote.version),
        group => format!("/apis/{group}/{}", remote.version),
    };
    let url = format!("https://{}{path}", remote.peer.place.authority());
    let mut failure = String::new();
    for _ in 0..ATTEMPTS {
        match get(server, remote, &path, CHECK).await {
            Ok((status, body)) if status.is_success() || status.is_redirection() => {
                let list: Value = serde_json::from_slice(&body).unwrap_or_default();
                let resources = Arc::new(convert::resources(&list, &remote.group, &remote.version));
                let before = remote.documents.get();
                return Ok(
                    openapi(server, remote, &path, Fetched { resources, fresh: true, ..(*before).clone() }).await
                );
            }
            Ok((status, _)) => {
                failure = format!("failing or missing response from {url}: bad status from {url}: {}", status.as_u16());
            }
            Err(error) => failure = format!("failing or missing response from {url}: {error}"),
        }
    }
    Err(Verdict { status: "False", reason: "FailedDiscoveryCheck", message: failure })
}

/// Adds the server's OpenAPI documents, where it has them and they are not known.
async fn openapi(server: &Server, remote: &Remote, path: &str, mut fetched: Fetched) -> Fetched {
    let index = match get(server, remote, "/openapi/v3", CHECK).await {
        Ok((StatusCode::OK, body)) => serde_json::from_slice(&body).unwrap_or_default(),
        _ => Value::Null,
    };
    let url = index["paths"][path.trim_start_matches('/')]["serverRelativeURL"].as_str().unwrap_or_default();
    let hash = url.split_once("hash=").map(|(_, hash)| hash).unwrap_or_default().to_owned();
    if fetched.openapi_v2.is_some() && !hash.is_empty() && hash == fetched.openapi_v3 {
        return fetched;
    }
    fetched.openapi_v3 = hash;
    let answer = get(server, remote, "/openapi/v2", DOCUMENT).await;
    if let Ok((StatusCode::OK, body)) = answer {
        let hash = hex::encode_upper(Sha512::digest(&body));
        fetched.openapi_v2 = serde_json::from_slice(&body).ok().map(|document| (hash, Arc::new(document)));
    }
    fetched
}

async fn get(server: &Server, remote: &Remote, path: &str, bounds: Bounds) -> Result<(StatusCode, Bytes), CallError> {
    let mut request = Request::new(Bytes::new());
    let url = format!("https://{}{path}", remote.peer.place.authority());
    *request.uri_mut() = url.parse().unwrap_or_else(|_| Uri::from_static("/"));
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(JSON));
    // Whoever belongs to this group may ask for anything anywhere.
    let user = UserInfo { name: "system:kube-aggregator".into(), groups: vec![MASTERS.into()], ..UserInfo::default() };
    request_header::set(request.headers_mut(), &user);
    let response = server.outbound().call(&remote.peer, request, bounds).await?;
    Ok((response.status(), response.into_body()))
}

/// Puts the verdict into the object's status, if it says something new.
async fn write(server: &Server, name: &str, verdict: &Verdict) -> Result<(), StatusError> {
    let registry = server.registry();
    let row = registry.row(GROUP, PLURAL)?;
    let meters = &server.metrics().table.aggregation;
    let available = verdict.status == "True";
    let mut was_available = false;
    let written = registry.modify(&row, "", name, |object| {
        let mut object = object.clone();
        was_available = is_available(&object);
        Ok(if set_condition(&mut object, verdict, Timestamp::now()) { Change::Put(object) } else { Change::Keep })
    });
    let written = written.await;
    if matches!(written, Ok(Written::Stored(_))) && was_available && !available {
        meters.became_unavailable.with([name, verdict.reason]).inc();
    }
    match written {
        // Deleted meanwhile: there is nothing to say any more.
        Err(error) if error.code() == 404 => Ok(()),
        written => written.map(drop),
    }
}

/// Sets the condition `Available`; whether anything of it changed.
fn set_condition(object: &mut Object, verdict: &Verdict, now: Timestamp) -> bool {
    let mut conditions = object.array(&["status", "conditions"]).to_vec();
    let before = conditions.iter().position(|condition| condition["type"] == "Available");
    let mut condition = json!({"type": "Available", "status": verdict.status, "reason": verdict.reason,
        "message": verdict.message, "lastTransitionTime": time::format(now)});
    match before {
        Some(at) => {
            let old = &conditions[at];
            if old["status"] == condition["status"] {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            if *old == condition {
                return false;
            }
            conditions[at] = condition;
        }
        None => conditions.push(condition),
    }
    object.set(&["status", "conditions"], conditions);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_are_dated_when_the_status_changes() {
        let mut object = Object::default();
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let no = |message: &str| Verdict { status: "False", reason: "ServiceNotFound", message: message.into() };
        assert!(set_condition(&mut object, &no("a"), at(0)));
        assert!(!set_condition(&mut object, &no("a"), at(1)));
        assert!(set_condition(&mut object, &no("b"), at(2)));
        let first = object.array(&["status", "conditions"])[0].clone();
        assert_eq!((&first["message"], &first["lastTransitionTime"]), (&json!("b"), &json!("1970-01-01T00:00:00Z")));
        let yes = Verdict { status: "True", reason: "Passed", message: "all checks passed".into() };
        assert!(set_condition(&mut object, &yes, at(3)));
        assert_eq!(object.array(&["status", "conditions"])[0]["lastTransitionTime"], "1970-01-01T00:00:03Z");
    }
}
