//! Writes events about objects, in the background: what happened, to whom, told by which component.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kminik_base::backoff::Backoff;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::correlate::{Correlator, Group, Verdict};
use crate::error::{describe, is_forbidden, is_invalid, is_not_found, is_terminating};

/// Events that may wait to be written; more are dropped, as events are best effort.
const WAITING: usize = 512;
/// Attempts to write one event.
const ATTEMPTS: u32 = 4;
/// Longest message the API takes, in bytes.
const MESSAGE_BYTES: usize = 1024;

/// Whether an event is of the normal course of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

struct Occurrence {
    about: ObjectReference,
    event_type: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Records events of one component. Cheap to clone; recording never blocks and never fails.
#[derive(Clone)]
pub struct Recorder {
    occurrences: mpsc::Sender<Occurrence>,
}

impl Recorder {
    /// `component` becomes `source.component` and `reportingComponent` (as `deployment-controller`, `kubelet`), `host` the
    /// node's name for components of a node and `""` otherwise. Must be used inside a tokio runtime; what is recorded after
    /// `stop` is dropped.
    pub fn new(client: kube::Client, component: &str, host: &str, stop: CancellationToken) -> Self {
        let (occurrences, waiting) = mpsc::channel(WAITING);
        let writer = Writer {
            client,
            component: component.to_string(),
            host: host.to_string(),
            correlator: Correlator::default(),
            written: 0,
        };
        tokio::spawn(async move { stop.run_until_cancelled(writer.run(waiting)).await });
        Self { occurrences }
    }

    /// Records that something happened to `about` (see [`reference`]).
    pub fn event(
        &self,
        about: ObjectReference,
        event_type: EventType,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES {
            let mut end = MESSAGE_BYTES;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
        let occurrence = Occurrence { about, event_type, reason: reason.into(), message, at: Timestamp::now() };
        if self.occurrences.try_send(occurrence).is_err() {
            tracing::debug!("event dropped");
        }
    }

    /// [`Recorder::event`] of the normal course about an object.
    pub fn normal<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.event(reference(object), EventType::Normal, reason, message);
    }

    /// [`Recorder::event`] of a warning about an object.
    pub fn warning<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.event(reference(object), EventType::Warning, reason, message);
    }
}

/// What an event's `involvedObject` says of an object.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: object.namespace(),
        name: object.meta().name.clone(),
        uid: object.uid(),
        resource_version: object.resource_version(),
        field_path: None,
    }
}

struct Writer {
    client: kube::Client,
    component: String,
    host: String,
    correlator: Correlator,
    written: u64,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Occurrence>) {
        while let Some(occurrence) = waiting.recv().await {
            let group = Group {
                object_uid: occurrence.about.uid.clone().unwrap_or_default(),
                object: format!(
                    "{}/{}/{}/{}",
                    occurrence.about.kind.as_deref().unwrap_or_default(),
                    occurrence.about.namespace.as_deref().unwrap_or_default(),
                    occurrence.about.name.as_deref().unwrap_or_default(),
                    occurrence.about.field_path.as_deref().unwrap_or_default(),
                ),
                event_type: occurrence.event_type.as_str(),
                reason: occurrence.reason.clone(),
            };
            let verdict = self.correlator.judge(&group, &occurrence.message, Instant::now());
            let mut retry = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
            for attempt in 1..=ATTEMPTS {
                match self.write(&occurrence, &group, &verdict).await {
                    Ok(()) => break,
                    Err(error) if is_forbidden(&error) || is_invalid(&error) || is_terminating(&error) => {
                        tracing::debug!(reason = occurrence.reason, error = describe(&error), "event refused");
                        break;
                    }
                    Err(error) if attempt == ATTEMPTS => {
                        tracing::debug!(reason = occurrence.reason, error = describe(&error), "event not written");
                    }
                    Err(_) => tokio::time::sleep(retry.next_delay()).await,
                }
            }
        }
    }

    async fn write(&mut self, occurrence: &Occurrence, group: &Group, verdict: &Verdict) -> Result<(), kube::Error> {
        let namespace = occurrence.about.namespace.as_deref().filter(|ns| !ns.is_empty()).unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        match verdict {
            Verdict::Drop => Ok(()),
            Verdict::Create { message } => self.create(&api, occurrence, group, message).await,
            Verdict::Count { name, count, message } => {
                let patch = serde_json::json!({
                    "count": count, "message": message, "lastTimestamp": Time(seconds(occurrence.at)),
                });
                match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                    Err(error) if is_not_found(&error) => {
                        self.correlator.forget(group, name);
                        self.create(&api, occurrence, group, message).await
                    }
                    Err(error) => Err(error),
                    Ok(_) => Ok(()),
                }
            }
        }
    }

    async fn create(
        &mut self,
        api: &Api<Event>,
        occurrence: &Occurrence,
        group: &Group,
        message: &str,
    ) -> Result<(), kube::Error> {
        self.written += 1;
        // Unique within a process by the counter and across restarts by the time.
        let suffix = occurrence.at.as_nanosecond().wrapping_add(i128::from(self.written));
        let base = occurrence.about.name.as_deref().unwrap_or("unknown");
        let name = format!("{base}.{suffix:x}");
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: api.namespace().map(str::to_string),
                ..ObjectMeta::default()
            },
            involved_object: occurrence.about.clone(),
            type_: Some(occurrence.event_type.as_str().to_string()),
            reason: Some(occurrence.reason.clone()),
            message: Some(message.to_string()),
            count: Some(1),
            first_timestamp: Some(Time(seconds(occurrence.at))),
            last_timestamp: Some(Time(seconds(occurrence.at))),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: Some(self.host.clone()).filter(|host| !host.is_empty()),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        };
        api.create(&PostParams::default(), &event).await?;
        self.correlator.created(group, message, name);
        Ok(())
    }
}

/// A time of the API: whole seconds.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
