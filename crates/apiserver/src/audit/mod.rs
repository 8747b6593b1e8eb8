//! The audit log: who asked for what and what became of it, as a policy asks, in `audit.k8s.io/v1` events.
//!
//! [`Audit`] is a request's handle; without a policy, or for requests that the policy leaves out, it is empty and every
//! call on it is one comparison. Whoever decides something about a request says so with [`Audit::annotate`].

mod log;
mod policy;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use jiff::Timestamp;
use kminik_meta::StatusError;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use self::log::Log;
pub use self::log::LogOptions;
pub use self::policy::{Level, Policy, PolicyError, Stage, Verdict};
use crate::auth::{Attributes, Decision, UserInfo};
use crate::metrics::Metrics;

/// Longest user agent that is written down, in bytes.
const USER_AGENT_BYTES: usize = 1024;
/// What a response that is larger is replaced by is its size: the log is no copy of the store.
const OBJECT_BYTES: usize = 32 << 20;

/// What is audited, and where to.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    pub policy: Policy,
    pub log: LogOptions,
}

/// What writes events, as upstream calls it.
const LOG: &str = "log";

/// Judges requests and writes events.
pub(crate) struct Auditor {
    policy: Policy,
    log: Mutex<Log>,
    metrics: Arc<Metrics>,
}

impl Auditor {
    pub(crate) fn new(config: AuditConfig, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        Ok(Auditor { policy: config.policy, log: Mutex::new(Log::open(config.log)?), metrics })
    }

    /// A request of a known identity arrives; its first event is written.
    ///
    /// # Errors
    /// 500 if the event cannot be written: then the request must not be served.
    pub(crate) fn begin(
        self: &Arc<Self>,
        id: &str,
        received: Timestamp,
        peer: Option<IpAddr>,
        parts: &Parts,
        attributes: &Attributes,
    ) -> Result<Audit, StatusError> {
        let verdict = self.policy.judge(attributes);
        self.metrics.table.audit.levels.with([verdict.level.as_str()]).inc();
        if verdict.level == Level::None {
            return Ok(Audit::default());
        }
        let event = Event::new(verdict.level, id, received, peer, parts, attributes);
        let record = Record { auditor: self.clone(), verdict: verdict.clone(), event: Mutex::new(event) };
        let audit = Audit(Some(Arc::new(record)));
        audit.write(Stage::RequestReceived).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the audit log cannot be written");
            self.metrics.table.audit.rejected.with([]).inc();
            StatusError::internal("failed to store audit event")
        })?;
        Ok(audit)
    }
}

struct Record {
    auditor: Arc<Auditor>,
    verdict: Verdict,
    event: Mutex<Event>,
}

/// A request's part in the audit log; empty for requests that are not audited.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Record>>);

impl Audit {
    /// Adds an annotation to the request's events. The first value of a key stands.
    pub fn annotate(&self, key: &str, value: impl FnOnce() -> String) {
        if let Some(record) = &self.0 {
            record.event.lock().annotations.entry(key.to_owned()).or_insert_with(value);
        }
    }

    /// Adds an annotation that tells something of bodies: only where the policy has requests' bodies written down.
    pub(crate) fn annotate_with_body(&self, key: &str, value: impl FnOnce() -> String) {
        if self.0.as_ref().is_some_and(|record| record.verdict.level >= Level::Request) {
            self.annotate(key, value);
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What the authorizers said.
    pub(crate) fn authorized(&self, decision: &Decision) {
        self.annotate("authorization.k8s.io/decision", || {
            if decision.allowed() { "allow" } else { "forbid" }.to_owned()
        });
        self.annotate("authorization.k8s.io/reason", || decision.reason().to_owned());
    }

    pub(crate) fn impersonated(&self, user: &UserInfo) {
        if let Some(record) = &self.0 {
            record.event.lock().impersonated_user = Some(User::of(user));
        }
    }

    /// The object as it was sent: where the policy asks for it, what `object` gives. It also names what is asked for, where
    /// the URL does not.
    pub(crate) fn request_object(&self, object: impl FnOnce() -> Option<Value>) {
        let Some(record) = &self.0 else { return };
        let Some(mut object) = object() else { return };
        let mut event = record.event.lock();
        if let Some(reference) = &mut event.object_ref {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            for (known, field) in [
                (&mut reference.namespace, "namespace"),
                (&mut reference.name, "name"),
                (&mut reference.uid, "uid"),
                (&mut reference.resource_version, "resourceVersion"),
            ] {
                if known.is_empty() {
                    *known = text(field);
                }
            }
        }
        if record.verdict.level >= Level::Request {
            if record.verdict.omit_managed_fields {
                drop_managed_fields(&mut object);
            }
            event.request_object = Some(object);
        }
    }

    /// A patch as it was sent.
    pub(crate) fn request_patch(&self, patch: impl FnOnce() -> Option<Value>) {
        if let Some(record) = &self.0
            && record.verdict.level >= Level::Request
        {
            record.event.lock().request_object = patch();
        }
    }

    /// Whether [`Audit::response_object`] has a use for the answer.
    pub(crate) fn wants_response(&self) -> bool {
        self.0.as_ref().is_some_and(|record| record.verdict.level >= Level::RequestResponse)
    }

    /// The answer's JSON, in as many pieces as it is sent in.
    pub(crate) fn response_object<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) {
        let Some(record) = self.0.as_ref().filter(|_| self.wants_response()) else { return };
        let bytes: Vec<u8> = pieces.flatten().copied().collect();
        if bytes.len() > OBJECT_BYTES {
            self.annotate("audit.k8s.io/truncated", || bytes.len().to_string());
            return;
        }
        // What is no JSON (a log) is no object.
        let Ok(mut object) = serde_json::from_slice::<Value>(&bytes) else { return };
        if record.verdict.omit_managed_fields {
            drop_managed_fields(&mut object);
        }
        record.event.lock().response_object = Some(object);
    }

    /// How the request is answered.
    pub(crate) fn responded(&self, code: u16, error: Option<&StatusError>) {
        let Some(record) = &self.0 else { return };
        let mut event = record.event.lock();
        let mut status = json!({"metadata": {}, "code": code});
        if let Some(error) = error {
            let mut whole = error.to_value();
            if let Some(map) = whole.as_object_mut() {
                map.retain(|key, _| !matches!(key.as_str(), "kind" | "apiVersion"));
            }
            if self.wants_response() && event.object_ref.is_some() {
                event.response_object = Some(error.to_value());
            }
            status = whole;
        }
        event.response_status = Some(status);
    }

    /// Writes the event of a stage that follows the first. A failure is logged; the request has been served.
    pub(crate) fn reached(&self, stage: Stage) {
        if let Err(error) = self.write(stage) {
            tracing::error!(error = &error as &dyn std::error::Error, "the audit log cannot be written");
        }
    }

    fn write(&self, stage: Stage) -> std::io::Result<()> {
        let Some(record) = self.0.as_ref().filter(|record| !record.verdict.omit_stages.contains(&stage)) else {
            return Ok(());
        };
        let mut event = record.event.lock();
        event.stage = stage;
        event.stage_timestamp = micros(Timestamp::now());
        let mut line = serde_json::to_vec(&*event)?;
        line.push(b'\n');
        let table = &record.auditor.metrics.table.audit;
        table.events.with([]).inc();
        record.auditor.log.lock().write(&line).inspect_err(|_| table.errors.with([LOG]).inc())
    }
}

/// Writes the last event of a request when dropped: also of one whose client has gone, or whose handler panics.
#[derive(Default)]
pub(crate) struct Completion(pub(crate) Audit);

impl Drop for Completion {
    fn drop(&mut self) {
        let Some(record) = &self.0.0 else { return };
        if std::thread::panicking() {
            self.0.responded(500, Some(&StatusError::internal("APIServer panic'd")));
            self.0.reached(Stage::Panic);
            return;
        }
        let unanswered = record.event.lock().response_status.is_none();
        if unanswered {
            let early = json!({"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200});
            record.event.lock().response_status = Some(early);
        }
        self.0.reached(Stage::ResponseComplete);
    }
}

/// One event, in the order in which upstream writes its fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl User {
    fn of(user: &UserInfo) -> Self {
        let UserInfo { name, uid, groups, extra } = user.clone();
        User { username: name, uid, groups, extra }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

impl Event {
    fn new(
        level: Level,
        id: &str,
        received: Timestamp,
        peer: Option<IpAddr>,
        parts: &Parts,
        attributes: &Attributes,
    ) -> Self {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let agent = header("user-agent");
        let user_agent = match agent.get(..USER_AGENT_BYTES) {
            Some(head) if agent.len() > USER_AGENT_BYTES => format!("{head}...TRUNCATED"),
            _ => agent.to_owned(),
        };
        let object_ref = attributes.resource_request.then(|| ObjectReference {
            resource: attributes.resource.clone(),
            namespace: attributes.namespace.clone(),
            name: attributes.name.clone(),
            uid: String::new(),
            api_group: attributes.group.clone(),
            api_version: attributes.version.clone(),
            resource_version: String::new(),
            subresource: attributes.subresource.clone(),
        });
        let received = micros(received);
        Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level,
            audit_id: id.to_owned(),
            stage: Stage::RequestReceived,
            request_uri: parts.uri.path_and_query().map_or_else(|| parts.uri.to_string(), ToString::to_string),
            verb: attributes.verb.clone(),
            user: User::of(&attributes.user),
            impersonated_user: None,
            source_ips: source_ips(header("x-forwarded-for"), header("x-real-ip"), peer),
            user_agent,
            object_ref,
            response_status: None,
            request_object: None,
            response_object: None,
            stage_timestamp: received.clone(),
            request_received_timestamp: received,
            annotations: BTreeMap::new(),
        }
    }
}

/// The addresses a request came by, the nearest last. All but that one are the client's own word.
fn source_ips(forwarded: &str, real: &str, peer: Option<IpAddr>) -> Vec<String> {
    let mut addresses: Vec<IpAddr> = forwarded.split(',').filter_map(|part| part.trim().parse().ok()).collect();
    if let Ok(real) = real.trim().parse()
        && !addresses.contains(&real)
    {
        addresses.push(real);
    }
    if let Some(peer) = peer
        && addresses.last() != Some(&peer)
    {
        addresses.push(peer);
    }
    addresses.iter().map(ToString::to_string).collect()
}

fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Of an object, or of each item of a list.
fn drop_managed_fields(object: &mut Value) {
    let mut of = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    of(object);
    object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(&mut of);
    for row in object.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        row.get_mut("object").into_iter().for_each(&mut of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_address_comes_last_and_once() {
        let peer = Some([10, 0, 0, 9].into());
        assert_eq!(source_ips("", "", peer), ["10.0.0.9"]);
        assert_eq!(source_ips("1.1.1.1, 2.2.2.2", "3.3.3.3", peer), ["1.1.1.1", "2.2.2.2", "3.3.3.3", "10.0.0.9"]);
        assert_eq!(source_ips("1.1.1.1,nonsense,10.0.0.9", "1.1.1.1", peer), ["1.1.1.1", "10.0.0.9"]);
    }
}
