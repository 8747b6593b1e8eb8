//! Where Services are found from this machine: the agent has every node port on localhost.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kminik_client::{Selection, until};
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;

use crate::env;
use crate::reason::{Failure, OrFail, Outcome, SVC_LIST, SVC_NOT_FOUND, SVC_UNREACHABLE};
use crate::template::render;

/// Bound on a list.
const LIST: Duration = Duration::from_secs(10);
/// By which slices say whose they are.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// What minikube shows where there is no URL.
pub const NO_NODE_PORT: &str = "No node port";

/// How URLs are written.
#[derive(Clone, Debug)]
pub struct Form {
    /// Template with the fields .IP .Port .Name.
    pub template: String,
    pub https: bool,
}

/// A Service in minikube's shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Exposed {
    pub namespace: String,
    pub name: String,
    /// Of each port that the node serves.
    #[serde(rename = "URLs")]
    pub urls: Vec<String>,
    /// `name/port` of each of these ports, or [`NO_NODE_PORT`].
    pub port_names: Vec<String>,
}

impl Exposed {
    fn new(service: &Service, form: &Form) -> Outcome<Self> {
        let ports = service.spec.iter().filter_map(|spec| spec.ports.as_ref()).flatten();
        let (mut urls, mut port_names) = (Vec::new(), Vec::new());
        for port in ports {
            let Some(node_port) = port.node_port.filter(|port| *port > 0) else { continue };
            let name = port.name.clone().unwrap_or_default();
            let address = Ipv4Addr::LOCALHOST.to_string();
            let number = node_port.to_string();
            let url = render(&form.template, &[("IP", &address), ("Port", &number), ("Name", &name)])?;
            urls.push(if form.https { url.replacen("http:", "https:", 1) } else { url });
            let label = if name.is_empty() { port.port.to_string() } else { format!("{name}/{}", port.port) };
            port_names.push(label);
        }
        if port_names.is_empty() {
            port_names.push(NO_NODE_PORT.to_owned());
        }
        let (namespace, name) = (service.metadata.namespace.clone(), service.metadata.name.clone());
        Ok(Self { namespace: namespace.unwrap_or_default(), name: name.unwrap_or_default(), urls, port_names })
    }
}

/// Those of a namespace, or of all if it is empty; by namespace and name.
pub async fn list(client: &Client, namespace: &str, form: &Form) -> Outcome<Vec<Exposed>> {
    let api: Api<Service> =
        if namespace.is_empty() { Api::all(client.clone()) } else { Api::namespaced(client.clone(), namespace) };
    let listed = tokio::time::timeout(LIST, api.list(&ListParams::default())).await;
    let listed =
        listed.or_fail(&SVC_LIST, "cannot list the services")?.or_fail(&SVC_LIST, "cannot list the services")?;
    listed.items.iter().map(|service| Exposed::new(service, form)).collect()
}

/// One Service, once something answers behind it.
///
/// # Errors
/// After `wait`: `SVC_NOT_FOUND`, or `SVC_UNREACHABLE` if it has no endpoint that is ready.
pub async fn find(client: &Client, namespace: &str, name: &str, wait: Duration, form: &Form) -> Outcome<Exposed> {
    let deadline = tokio::time::Instant::now() + wait.max(Duration::from_secs(1));
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let within = Selection::namespace(namespace);
    let is_there = |services: &[Arc<Service>]| services.iter().any(|s| s.metadata.name.as_deref() == Some(name));
    let not_found = || {
        Failure::new(
            &SVC_NOT_FOUND,
            format!(
                "Service '{name}' was not found in '{namespace}' namespace. You may select another namespace by using \
                 'kminik service {name} -n <namespace>'. Or list out all the services using 'kminik service list'"
            ),
        )
    };
    if tokio::time::timeout_at(deadline, until(client, &(), &within, is_there)).await.is_err() {
        return Err(not_found());
    }
    let service = services.get_opt(name).await.or_fail(&SVC_LIST, "cannot read the service")?.ok_or_else(not_found)?;
    let exposed = Exposed::new(&service, form)?;
    let answers = |slices: &[Arc<EndpointSlice>]| slices.iter().any(|slice| is_of(slice, name) && has_ready(slice));
    match tokio::time::timeout_at(deadline, until(client, &(), &within, answers)).await {
        Ok(()) => Ok(exposed),
        Err(_) => Err(Failure::new(
            &SVC_UNREACHABLE,
            format!("service not available: no running pod for service {name} found"),
        )),
    }
}

fn is_of(slice: &EndpointSlice, service: &str) -> bool {
    slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)).is_some_and(|name| name == service)
}

fn has_ready(slice: &EndpointSlice) -> bool {
    slice.endpoints.iter().any(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true))
}

/// Hands the address to the desktop; false where there is none.
pub fn open(url: &str) -> bool {
    if env::get("DISPLAY").or_else(|| env::get("WAYLAND_DISPLAY")).is_none() {
        return false;
    }
    let mut opener = Command::new("xdg-open");
    opener.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // It lives as long as the browser may; nobody waits for it.
    opener.spawn().is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn urls_of_node_ports_only() {
        let service = |ports: serde_json::Value| -> Service {
            serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": {"ports": ports}}))
                .unwrap()
        };
        let form = |template: &str, https| Form { template: template.to_owned(), https };
        let both = service(json!([{"name": "http", "port": 80, "nodePort": 30080}, {"port": 9, "nodePort": 30009}]));
        let exposed = Exposed::new(&both, &form("http://{{.IP}}:{{.Port}}", true)).unwrap();
        assert_eq!(exposed.urls, ["https://127.0.0.1:30080", "https://127.0.0.1:30009"]);
        assert_eq!(exposed.port_names, ["http/80", "9"]);
        let inner = Exposed::new(&service(json!([{"port": 80}])), &form("{{.Name}}", false)).unwrap();
        assert_eq!(
            serde_json::to_value(&inner).unwrap(),
            json!({"Namespace": "ns", "Name": "web", "URLs": [], "PortNames": ["No node port"]})
        );
        assert!(Exposed::new(&both, &form("{{.Host}}", false)).is_err());
    }
}
