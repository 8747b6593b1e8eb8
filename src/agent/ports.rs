//! Which ports of this machine are relayed: on loopback the API's, every node port of a Service, and those of addons that are to be
//! found by a port of their own; where the user wants them, published ports that the driver does not publish itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kminik_client::{Informer, Recorder};
use tokio::sync::{Notify, watch};

use super::notes::Notes;
use super::relay::{Relay, Way};
use crate::addons::HostPort;
use crate::drivers::Driver;
use crate::exposure::{Exposure, Protocol};
use crate::home::Home;
use crate::ops::addons;
use crate::profile::Profile;

/// Where this machine listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Door {
    protocol: Protocol,
    /// `None` is loopback, in both families.
    address: Option<IpAddr>,
    port: u16,
}

/// Where a port leads.
#[derive(Clone, Debug)]
struct Target {
    /// Of the node.
    port: u16,
    /// The Service it belongs to; the API's and published ones have none.
    service: Option<Arc<Service>>,
}

/// Wanted ports.
type Wanted = BTreeMap<Door, Target>;

/// A port that is taken by another program is tried again this often.
const RETRY: Duration = Duration::from_secs(10);

pub(super) struct Ports {
    profile: watch::Receiver<Profile>,
    driver: Arc<dyn Driver>,
    notes: Arc<Notes>,
    recorder: Recorder,
    /// With the port of the node that each leads to.
    open: BTreeMap<Door, (Relay, u16)>,
    /// Ports that are taken by others, with the note about each.
    taken: BTreeMap<Door, String>,
}

impl Ports {
    pub(super) fn new(
        profile: watch::Receiver<Profile>,
        driver: Arc<dyn Driver>,
        notes: Arc<Notes>,
        recorder: Recorder,
    ) -> Self {
        Self { profile, driver, notes, recorder, open: BTreeMap::new(), taken: BTreeMap::new() }
    }

    /// Follows the Services, and what the profile says of addons and published ports, for ever.
    pub(super) async fn follow(mut self, services: &Informer<Service>, home: &Home) {
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let _subscription = services.subscribe(move |_| notify.notify_one());
        let of_addons = |profile: &Profile| {
            addons::host_ports(home, profile).unwrap_or_else(|failure| {
                tracing::warn!(%failure, "the ports of addons are not known");
                Vec::new()
            })
        };
        let mut profile = self.profile.borrow_and_update().clone();
        // The API's own port does not wait for the API.
        loop {
            let api = (!self.driver.publishes()).then_some(profile.networking.api_port);
            let wanted = wanted(&services.list(), &profile.exposure, api, &of_addons(&profile));
            self.apply(&wanted, &profile).await;
            let retry = if self.taken.is_empty() { Duration::MAX } else { RETRY };
            tokio::select! {
                () = changed.notified() => {}
                // Its sender lives as long as the agent.
                Ok(()) = self.profile.changed() => profile = self.profile.borrow_and_update().clone(),
                () = tokio::time::sleep(retry) => {}
            }
        }
    }

    async fn apply(&mut self, wanted: &Wanted, profile: &Profile) {
        self.open.retain(|door, (_, port)| wanted.get(door).is_some_and(|target| target.port == *port));
        let notes = &self.notes;
        self.taken.retain(|door, note| {
            let keep = wanted.contains_key(door);
            if !keep {
                notes.remove(note);
            }
            keep
        });
        for (door, target) in wanted {
            if self.open.contains_key(door) {
                continue;
            }
            let address = SocketAddr::from((profile.node_address, target.port));
            let way = match profile.tunnel {
                false => Way::Direct(address),
                true => Way::Tunnel { driver: self.driver.clone(), profile: Arc::new(profile.clone()), address },
            };
            let relay = match door.address {
                None => Relay::on_loopback(door.protocol, door.port, way).await,
                Some(listen) => Relay::start(door.protocol, &[(listen, door.port).into()], way).await,
            };
            match relay {
                Ok(relay) => {
                    self.open.insert(*door, (relay, target.port));
                    if let Some(note) = self.taken.remove(door) {
                        self.notes.remove(&note);
                    }
                }
                Err(error) => {
                    if !self.taken.contains_key(door) {
                        let note = self.complain(*door, target, profile, &error);
                        self.taken.insert(*door, note);
                    }
                }
            }
        }
    }

    fn complain(&self, door: Door, target: &Target, profile: &Profile, error: &std::io::Error) -> String {
        let service = target.service.as_deref();
        let port = door.port;
        let whose = match service {
            Some(service) => {
                let metadata = &service.metadata;
                let namespace = metadata.namespace.as_deref().unwrap_or_default();
                let name = metadata.name.as_deref().unwrap_or_default();
                let what = if port == target.port { "node port" } else { "port" };
                format!("{what} {port} of service {namespace}/{name}")
            }
            None if target.port == profile.networking.api_port => format!("port {port} of the API"),
            None => format!("published port {port}"),
        };
        let protocol = match door.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let place = door.address.map_or_else(|| "localhost".to_owned(), |address| address.to_string());
        let note =
            format!("{whose} ({protocol}) is not on {place}: {error}; use {}:{}", profile.node_address, target.port);
        if let Some(service) = service {
            self.recorder.warning(service, "HostPortUnavailable", note.clone());
        }
        self.notes.add(&note);
        note
    }
}

/// `api` is the API's port on the node; none where the driver serves that and the published ports itself.
fn wanted(services: &[Arc<Service>], exposure: &Exposure, api: Option<u16>, addons: &[HostPort]) -> Wanted {
    let mut wanted = Wanted::new();
    if let Some(api_port) = api {
        let own = |port| Target { port, service: None };
        let api = |address| Door { protocol: Protocol::Tcp, address, port: api_port };
        let listen = exposure.listen.filter(|address| !address.is_loopback());
        if let Some(listen) = listen {
            wanted.insert(api(Some(listen)), own(api_port));
        }
        // Every address is loopback's too.
        if listen.is_none_or(|address| !address.is_unspecified()) {
            wanted.insert(api(None), own(api_port));
        }
        for port in &exposure.ports {
            let address = port.address.or(exposure.listen);
            wanted.insert(Door { protocol: port.protocol, address, port: port.host }, own(port.node));
        }
    }
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
                let door = |port| Door { protocol, address: None, port };
                let is_free = |port: u16| !exposure.is_on_loopback(protocol, port);
                if is_free(node_port) {
                    wanted.entry(door(node_port)).or_insert_with(target);
                }
                for addon in addons.iter().filter(|addon| addon.leads_to(service, port.port) && is_free(addon.port)) {
                    wanted.entry(door(addon.port)).or_insert_with(target);
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
        let addons = [addon("web"), addon("other")];
        let found = |exposure: &Exposure, api| -> Vec<_> {
            let wanted = wanted(&services, exposure, api, &addons);
            wanted.into_iter().map(|(door, target)| (door.protocol, door.address, door.port, target.port)).collect()
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let of_services = [(tcp, None, 5000, 30080), (tcp, None, 30080, 30080), (udp, None, 30080, 30080)];
        assert_eq!(found(&Exposure::default(), None), of_services);
        let with_api = [of_services[0], (tcp, None, 8443, 8443), of_services[1], of_services[2]];
        assert_eq!(found(&Exposure::default(), Some(8443)), with_api);
        let any: IpAddr = "0.0.0.0".parse().unwrap();
        let mut exposure = Exposure { listen: Some(any), ..Exposure::default() };
        exposure.publish(&crate::exposure::parse("30080:80").unwrap(), &[]).unwrap();
        assert_eq!(found(&exposure, None), [of_services[0], of_services[2]], "the driver has that one");
        let open = [of_services[0], (tcp, Some(any), 6443, 6443), (tcp, Some(any), 30080, 80), of_services[2]];
        let mut found = found(&exposure, Some(6443));
        found.sort_by_key(|(protocol, address, port, _)| (*protocol, *port, *address));
        assert_eq!(found, open);
    }
}
