//! Which ports of loopback are relayed: the API's, and every node port of a Service.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kminik_client::{Informer, Recorder};
use tokio::sync::Notify;

use super::notes::Notes;
use super::relay::{Protocol, Relay};

/// Wanted ports, with the service each belongs to; the API's has none.
type Wanted = BTreeMap<(Protocol, u16), Option<Arc<Service>>>;

/// A port that is taken by another program is tried again this often.
const RETRY: Duration = Duration::from_secs(10);

pub(super) struct Ports {
    node: Ipv4Addr,
    /// Of the API on the node, where it is to be relayed.
    api_port: Option<u16>,
    notes: Arc<Notes>,
    recorder: Recorder,
    open: BTreeMap<(Protocol, u16), Relay>,
    /// Ports that are taken by others, with the note about each.
    taken: BTreeMap<(Protocol, u16), String>,
}

impl Ports {
    pub(super) fn new(node: Ipv4Addr, api_port: Option<u16>, notes: Arc<Notes>, recorder: Recorder) -> Self {
        Self { node, api_port, notes, recorder, open: BTreeMap::new(), taken: BTreeMap::new() }
    }

    /// Follows the Services for ever.
    pub(super) async fn follow(mut self, services: &Informer<Service>) {
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let _subscription = services.subscribe(move |_| notify.notify_one());
        // The API's own port does not wait for the API.
        loop {
            self.apply(&wanted(&services.list(), self.api_port)).await;
            if self.taken.is_empty() {
                changed.notified().await;
            } else {
                // It ends early when something changed.
                let _ = tokio::time::timeout(RETRY, changed.notified()).await;
            }
        }
    }

    async fn apply(&mut self, wanted: &Wanted) {
        self.open.retain(|key, _| wanted.contains_key(key));
        let notes = &self.notes;
        self.taken.retain(|key, note| {
            let keep = wanted.contains_key(key);
            if !keep {
                notes.remove(note);
            }
            keep
        });
        for (key, service) in wanted {
            if self.open.contains_key(key) {
                continue;
            }
            let (protocol, port) = *key;
            match Relay::on_loopback(protocol, port, SocketAddr::from((self.node, port))).await {
                Ok(relay) => {
                    self.open.insert(*key, relay);
                    if let Some(note) = self.taken.remove(key) {
                        self.notes.remove(&note);
                    }
                }
                Err(error) => {
                    if !self.taken.contains_key(key) {
                        let note = self.complain(protocol, port, service.as_deref(), &error);
                        self.taken.insert(*key, note);
                    }
                }
            }
        }
    }

    fn complain(&self, protocol: Protocol, port: u16, service: Option<&Service>, error: &std::io::Error) -> String {
        let whose = match service {
            Some(service) => {
                let metadata = &service.metadata;
                let namespace = metadata.namespace.as_deref().unwrap_or_default();
                format!("node port {port} of service {namespace}/{}", metadata.name.as_deref().unwrap_or_default())
            }
            None => format!("port {port} of the API"),
        };
        let protocol = match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let note = format!("{whose} ({protocol}) is not on localhost: {error}; use {}:{port}", self.node);
        if let Some(service) = service {
            self.recorder.warning(service, "HostPortUnavailable", note.clone());
        }
        self.notes.add(&note);
        note
    }
}

fn wanted(services: &[Arc<Service>], api_port: Option<u16>) -> Wanted {
    let mut wanted: Wanted = api_port.map(|port| ((Protocol::Tcp, port), None)).into_iter().collect();
    for service in services {
        for port in service.spec.iter().filter_map(|spec| spec.ports.as_ref()).flatten() {
            let protocol = match port.protocol.as_deref() {
                None | Some("TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some(_) => continue,
            };
            let node_port = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
            if let Some(node_port) = node_port {
                wanted.entry((protocol, node_port)).or_insert_with(|| Some(service.clone()));
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_node_port_once_and_the_api() {
        let service = |ports: serde_json::Value| -> Arc<Service> {
            let service = json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": {"ports": ports}});
            Arc::new(serde_json::from_value(service).unwrap())
        };
        let services = [
            service(json!([{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP", "nodePort": 30080}])),
            service(json!([{"port": 80}, {"port": 9, "protocol": "SCTP", "nodePort": 30009}])),
        ];
        let keys: Vec<_> = wanted(&services, Some(8443)).into_keys().collect();
        assert_eq!(keys, [(Protocol::Tcp, 8443), (Protocol::Tcp, 30080), (Protocol::Udp, 30080)]);
    }
}
