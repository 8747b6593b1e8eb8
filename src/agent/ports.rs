//! Which ports of loopback are relayed: the API's, every node port of a Service, and those of addons that are to be found by a
//! port of their own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kminik_client::{Informer, Recorder};
use tokio::sync::{Notify, watch};

use super::notes::Notes;
use super::relay::{Protocol, Relay};
use crate::addons::HostPort;
use crate::home::Home;
use crate::ops::addons;
use crate::profile::Profile;

/// Where a port leads.
#[derive(Clone, Debug)]
struct Target {
    /// Of the node.
    port: u16,
    /// The Service it belongs to; the API's has none.
    service: Option<Arc<Service>>,
}

/// Wanted ports.
type Wanted = BTreeMap<(Protocol, u16), Target>;

/// A port that is taken by another program is tried again this often.
const RETRY: Duration = Duration::from_secs(10);

pub(super) struct Ports {
    node: Ipv4Addr,
    /// Of the API on the node, where it is to be relayed.
    api_port: Option<u16>,
    notes: Arc<Notes>,
    recorder: Recorder,
    /// With the port of the node that each leads to.
    open: BTreeMap<(Protocol, u16), (Relay, u16)>,
    /// Ports that are taken by others, with the note about each.
    taken: BTreeMap<(Protocol, u16), String>,
}

impl Ports {
    pub(super) fn new(node: Ipv4Addr, api_port: Option<u16>, notes: Arc<Notes>, recorder: Recorder) -> Self {
        Self { node, api_port, notes, recorder, open: BTreeMap::new(), taken: BTreeMap::new() }
    }

    /// Follows the Services, and what the profile says of addons, for ever.
    pub(super) async fn follow(
        mut self,
        services: &Informer<Service>,
        home: &Home,
        mut profile: watch::Receiver<Profile>,
    ) {
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let _subscription = services.subscribe(move |_| notify.notify_one());
        let of_addons = |profile: &Profile| {
            addons::host_ports(home, profile).unwrap_or_else(|failure| {
                tracing::warn!(%failure, "the ports of addons are not known");
                Vec::new()
            })
        };
        let mut addons = of_addons(&profile.borrow_and_update());
        // The API's own port does not wait for the API.
        loop {
            self.apply(&wanted(&services.list(), self.api_port, &addons)).await;
            let retry = if self.taken.is_empty() { Duration::MAX } else { RETRY };
            tokio::select! {
                () = changed.notified() => {}
                // Its sender lives as long as the agent.
                Ok(()) = profile.changed() => addons = of_addons(&profile.borrow_and_update()),
                () = tokio::time::sleep(retry) => {}
            }
        }
    }

    async fn apply(&mut self, wanted: &Wanted) {
        self.open.retain(|key, (_, port)| wanted.get(key).is_some_and(|target| target.port == *port));
        let notes = &self.notes;
        self.taken.retain(|key, note| {
            let keep = wanted.contains_key(key);
            if !keep {
                notes.remove(note);
            }
            keep
        });
        for (key, target) in wanted {
            if self.open.contains_key(key) {
                continue;
            }
            let (protocol, port) = *key;
            match Relay::on_loopback(protocol, port, SocketAddr::from((self.node, target.port))).await {
                Ok(relay) => {
                    self.open.insert(*key, (relay, target.port));
                    if let Some(note) = self.taken.remove(key) {
                        self.notes.remove(&note);
                    }
                }
                Err(error) => {
                    if !self.taken.contains_key(key) {
                        let note = self.complain(protocol, port, target, &error);
                        self.taken.insert(*key, note);
                    }
                }
            }
        }
    }

    fn complain(&self, protocol: Protocol, port: u16, target: &Target, error: &std::io::Error) -> String {
        let service = target.service.as_deref();
        let whose = match service {
            Some(service) => {
                let metadata = &service.metadata;
                let namespace = metadata.namespace.as_deref().unwrap_or_default();
                let name = metadata.name.as_deref().unwrap_or_default();
                let what = if port == target.port { "node port" } else { "port" };
                format!("{what} {port} of service {namespace}/{name}")
            }
            None => format!("port {port} of the API"),
        };
        let protocol = match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let note = format!("{whose} ({protocol}) is not on localhost: {error}; use {}:{}", self.node, target.port);
        if let Some(service) = service {
            self.recorder.warning(service, "HostPortUnavailable", note.clone());
        }
        self.notes.add(&note);
        note
    }
}

fn wanted(services: &[Arc<Service>], api_port: Option<u16>, addons: &[HostPort]) -> Wanted {
    let api = api_port.map(|port| ((Protocol::Tcp, port), Target { port, service: None }));
    let mut wanted: Wanted = api.into_iter().collect();
    for service in services {
        for port in service.spec.iter().filter_map(|spec| spec.ports.as_ref()).flatten() {
            let protocol = match port.protocol.as_deref() {
                None | Some("TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some(_) => continue,
            };
            let node_port = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
            if let Some(node_port) = node_port {
                let target = || Target { port: node_port, service: Some(service.clone()) };
                wanted.entry((protocol, node_port)).or_insert_with(target);
                for addon in addons.iter().filter(|addon| addon.leads_to(service, port.port)) {
                    wanted.entry((protocol, addon.port)).or_insert_with(target);
                }
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
        let addon =
            |service: &str| HostPort { port: 5000, namespace: "ns".into(), service: service.into(), service_port: 80 };
        let found: Vec<_> = wanted(&services, Some(8443), &[addon("web"), addon("other")])
            .into_iter()
            .map(|((protocol, port), target)| (protocol, port, target.port))
            .collect();
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        assert_eq!(found, [(tcp, 5000, 30080), (tcp, 8443, 8443), (tcp, 30080, 30080), (udp, 30080, 30080)]);
    }
}
