//! From a service to an address, by what the cache holds.

use kminik_meta::Object;
use rand::seq::IndexedRandom;
use serde_json::Value;

use super::error::DialError;
use crate::storage::cache::Cache;
use crate::storage::key;

const SERVICES: &str = "core/services";
const SLICES: &str = "discovery.k8s.io/endpointslices";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Where a port of a service (by number) can be reached now.
///
/// # Errors
/// When there is no such service or port, or no endpoint of it is ready.
pub(super) fn service(cache: &Cache, namespace: &str, name: &str, port: u16) -> Result<(String, u16), DialError> {
    let services = cache.snapshot(SERVICES);
    let service = services.get(&key::object(SERVICES, namespace, name)).and_then(|entry| entry.object().ok());
    let service = service.ok_or_else(|| DialError::NoService(name.to_owned()))?;
    if service.str(&["spec", "type"]) == Some("ExternalName") {
        let host = service.str(&["spec", "externalName"]).unwrap_or_default();
        return Ok((host.to_owned(), port));
    }
    let port_name = port_name(&service, port).ok_or_else(|| DialError::NoPort { service: name.to_owned(), port })?;
    ready_endpoint(cache, namespace, name, &port_name)
}

/// The name of the port of this number; that of an only port is empty.
fn port_name(service: &Object, number: u16) -> Option<String> {
    let mut ports = service.array(&["spec", "ports"]).iter();
    let found = ports.find(|port| port.get("port").and_then(Value::as_u64) == Some(u64::from(number)))?;
    Some(found.get("name").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// Some ready endpoint of a service, by its slices.
pub(super) fn ready_endpoint(
    cache: &Cache,
    namespace: &str,
    service: &str,
    port: &str,
) -> Result<(String, u16), DialError> {
    let slices = cache.snapshot(SLICES);
    let mut ready = Vec::new();
    for entry in slices.range(&key::namespace(SLICES, namespace), None) {
        if entry.labels().get(SERVICE_LABEL).is_none_or(|owner| owner != service) {
            continue;
        }
        let Ok(slice) = entry.object() else { continue };
        let number = slice.array(&["ports"]).iter().find_map(|row| {
            let row_name = row.get("name").and_then(Value::as_str).unwrap_or_default();
            (row_name == port).then(|| row.get("port").and_then(Value::as_u64)).flatten()
        });
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        for endpoint in slice.array(&["endpoints"]) {
            let is_ready = endpoint.get("conditions").and_then(|conditions| conditions.get("ready")?.as_bool());
            let address = endpoint.get("addresses").and_then(|addresses| addresses.get(0)?.as_str());
            if let (true, Some(address)) = (is_ready.unwrap_or(true), address) {
                ready.push((address.to_owned(), number));
            }
        }
    }
    ready.choose(&mut rand::rng()).cloned().ok_or_else(|| DialError::NoEndpoint(service.to_owned()))
}
