//! APIServices as a source of the table: what others serve, and in which order everything is listed.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kminik_meta::Object;
use parking_lot::Mutex;

use super::priorities::Priority;
use super::{Documents, Remote, STORED};
use crate::config::CertificateAndKey;
use crate::outbound::{Peer, Place, Security, Trust, Verify};
use crate::registry::compose::{Parts, Source};
use crate::storage::cache::Cache;

/// The port of a service that names none.
const DEFAULT_PORT: u16 = 443;

/// Reads the APIServices in the cache.
pub struct ApiServiceSource {
    /// Shown to extension servers.
    identity: Option<CertificateAndKey>,
    made: Mutex<HashMap<String, Made>>,
}

/// What was made of an object, with the revision it was made from.
type Made = (u64, Option<Arc<Remote>>, Priority);

impl ApiServiceSource {
    pub fn new(identity: Option<CertificateAndKey>) -> Self {
        ApiServiceSource { identity, made: Mutex::default() }
    }

    fn remote(&self, service: &Object, before: Option<&Arc<Remote>>) -> Option<Arc<Remote>> {
        let reference = service.get(&["spec", "service"]).filter(|reference| reference.is_object())?;
        let text = |key: &str| reference.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let port = reference.get("port").and_then(serde_json::Value::as_u64).and_then(|port| u16::try_from(port).ok());
        let bundle = BASE64_STANDARD.decode(service.str(&["spec", "caBundle"]).unwrap_or_default()).unwrap_or_default();
        let verify = match service.bool(&["spec", "insecureSkipTLSVerify"]) {
            Some(true) => Verify::Nothing,
            _ if bundle.is_empty() => Verify::Public,
            _ => Verify::Bundle(bundle.into()),
        };
        let place = Place::Service {
            namespace: text("namespace"),
            name: text("name"),
            port: port.filter(|port| *port != 0).unwrap_or(DEFAULT_PORT),
        };
        let peer = Peer { place, security: Security::Tls(Trust { verify, identity: self.identity.clone() }) };
        // What another server said means nothing.
        let documents = before.filter(|before| before.peer.place == peer.place).map(|before| before.documents.clone());
        Some(Arc::new(Remote {
            name: service.name().to_owned(),
            group: service.str(&["spec", "group"]).unwrap_or_default().to_owned(),
            version: service.str(&["spec", "version"]).unwrap_or_default().to_owned(),
            peer,
            available: is_available(service),
            documents: documents.unwrap_or_else(|| Arc::new(Documents::default())),
        }))
    }
}

/// Whether the condition `Available` holds.
pub(crate) fn is_available(service: &Object) -> bool {
    let text = |condition: &serde_json::Value, key: &str| {
        condition.get(key).and_then(|value| value.as_str()).map(str::to_owned)
    };
    let conditions = service.array(&["status", "conditions"]);
    let available = conditions.iter().find(|condition| text(condition, "type").as_deref() == Some("Available"));
    available.and_then(|condition| text(condition, "status")).as_deref() == Some("True")
}

impl Source for ApiServiceSource {
    fn reads(&self) -> &[&'static str] {
        &[STORED]
    }

    fn contribute(&self, cache: &Cache, parts: &mut Parts) {
        let mut made = self.made.lock();
        let mut kept = HashMap::new();
        for entry in cache.snapshot(STORED).entries.values() {
            let (_, name) = entry.namespace_and_name();
            let known = made.remove(name);
            let of_entry = match known {
                Some(known) if known.0 == entry.revision => known,
                known => {
                    let Ok(service) = entry.object() else { continue };
                    let number = |key: &str| service.i64(&["spec", key]).unwrap_or_default();
                    let priority =
                        Priority { group: number("groupPriorityMinimum"), version: number("versionPriority") };
                    let before = known.and_then(|(_, remote, _)| remote);
                    (entry.revision, self.remote(&service, before.as_ref()), priority)
                }
            };
            let (version, group) = name.split_once('.').unwrap_or((name, ""));
            parts.priorities.insert((group.to_owned(), version.to_owned()), of_entry.2);
            parts.remotes.extend(of_entry.1.clone());
            kept.insert(name.to_owned(), of_entry);
        }
        *made = kept;
    }
}
