//! Services: cluster IPs and node ports are given and kept, and what one type has the other types lose. Each cluster IP in
//! use has an IPAddress object, made and removed with the service.

pub(crate) mod addresses;
mod pools;
mod spec;

use std::net::Ipv4Addr;
use std::sync::Arc;

use kminik_meta::{ErrorList, FieldError, Object, Path, StatusError};
use serde_json::{Value, json};

pub(crate) use self::pools::Pools;
use self::pools::{PoolError, Reserved};
use self::spec::{Type, cluster_ip, is_headless, needs_health_check_port, needs_node_ports, node_port, port_key, text};
use crate::registry::strategy::{Companion, Reservation, Strategy, StrategyContext, copy_member};

pub(crate) struct Services {
    pub(crate) pools: Arc<Pools>,
}

impl Strategy for Services {
    fn prepare_create(&self, _ctx: &StrategyContext<'_>, service: &mut Object) {
        service.set(&["status"], json!({ "loadBalancer": {} }));
        normalise_addresses(None, service);
        set_families(service);
        drop_foreign_fields(service);
    }

    fn prepare_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        copy_member(old, new, "status");
        drop_outlived_fields(old, new);
        keep_allocated(old, new);
        normalise_addresses(Some(old), new);
        set_families(new);
        drop_foreign_fields(new);
        if Type::of(new) != Type::LoadBalancer {
            new.set(&["status", "loadBalancer"], json!({}));
        }
    }

    fn reserve(
        &self,
        ctx: &StrategyContext<'_>,
        old: Option<&Object>,
        new: &mut Object,
    ) -> Result<Option<Box<dyn Reservation>>, StatusError> {
        let mut reserved = self.pools.begin(ctx.registry);
        let mut errors = ErrorList::new();
        reserve_addresses(&mut reserved, old, new, &mut errors);
        if errors.is_empty() {
            reserve_ports(&mut reserved, old, new, &mut errors);
        }
        if !errors.is_empty() {
            return Err(StatusError::invalid("", "Service", new.name(), &errors));
        }
        Ok((!reserved.is_empty()).then(|| Box::new(reserved) as Box<dyn Reservation>))
    }

    fn companions(&self, old: Option<&Object>, new: Option<&Object>) -> Vec<Companion> {
        addresses::companions(old, new)
    }

    /// Addresses are held by their IPAddress objects.
    fn claims(&self, service: &Object) -> Vec<String> {
        let mut claims: Vec<String> =
            spec::node_ports(service).into_iter().map(|port| format!("ports/{port}")).collect();
        claims.sort();
        // One port may serve several protocols.
        claims.dedup();
        claims
    }

    fn validate(&self, _ctx: &StrategyContext<'_>, service: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        if Type::of(service) != Type::ExternalName && !(is_headless(service) && has_no_selector(service)) {
            one_family(service, &mut errors);
        }
        errors
    }
}

/// What of a second family is not configured on this cluster.
fn one_family(service: &Object, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    let (families, list) = (service.array(&["spec", "ipFamilies"]), service.array(&["spec", "clusterIPs"]));
    let policy = text(service, "ipFamilyPolicy");
    if policy == "SingleStack" && (families.len() > 1 || list.len() > 1) {
        let what = if families.len() > 1 { "IP families" } else { "cluster IPs" };
        let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
        errors.push(FieldError::invalid(&spec.child("ipFamilyPolicy"), policy, detail));
    }
    for (index, family) in families.iter().enumerate().filter(|(_, family)| family.as_str() == Some("IPv6")) {
        let path = spec.child("ipFamilies").index(index);
        errors.push(FieldError::invalid(&path, family.clone(), "not configured on this cluster"));
    }
    for (index, ip) in list.iter().enumerate() {
        if ip.as_str().is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()) {
            let path = spec.child("clusterIPs").index(index);
            errors.push(FieldError::invalid(&path, ip.clone(), "IPv6 is not configured on this cluster"));
        }
    }
}

fn has_no_selector(service: &Object) -> bool {
    service.get(&["spec", "selector"]).and_then(Value::as_object).is_none_or(|map| map.is_empty())
}

/// clusterIP and clusterIPs say the same; a client may give one of them.
fn normalise_addresses(old: Option<&Object>, service: &mut Object) {
    let address = cluster_ip(service).to_owned();
    let list = service.array(&["spec", "clusterIPs"]).to_vec();
    match old {
        None => {
            if !address.is_empty() && list.is_empty() {
                service.set(&["spec", "clusterIPs"], json!([address]));
            }
        }
        Some(old) => {
            let same_list = old.array(&["spec", "clusterIPs"]) == list.as_slice();
            if cluster_ip(old) != address && same_list {
                // The client changed only the old field; the new one follows it.
                match address.as_str() {
                    "" => drop(service.remove(&["spec", "clusterIPs"])),
                    address => service.set(&["spec", "clusterIPs"], json!([address])),
                }
            }
        }
    }
}

/// This cluster has one family.
fn set_families(service: &mut Object) {
    if Type::of(service) == Type::ExternalName {
        return;
    }
    let unset = text(service, "ipFamilyPolicy").is_empty();
    let no_families = service.array(&["spec", "ipFamilies"]).is_empty();
    if is_headless(service) && has_no_selector(service) {
        // Whoever fills in the endpoints may use both families, whatever the cluster has.
        if unset {
            service.set(&["spec", "ipFamilyPolicy"], "RequireDualStack");
        }
        if no_families {
            let dual = text(service, "ipFamilyPolicy") != "SingleStack";
            service.set(&["spec", "ipFamilies"], if dual { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) });
        }
        return;
    }
    if unset {
        service.set(&["spec", "ipFamilyPolicy"], "SingleStack");
    }
    if no_families {
        service.set(&["spec", "ipFamilies"], json!(["IPv4"]));
    }
}

/// Removes what the type cannot have.
fn drop_foreign_fields(service: &mut Object) {
    if Type::of(service) == Type::ExternalName {
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            service.remove(&["spec", field]);
        }
    }
}

/// What the old type had and the new one has not goes, unless the client gave it another value (which is then refused).
fn drop_outlived_fields(old: &Object, new: &mut Object) {
    let (was, is) = (Type::of(old), Type::of(new));
    let unchanged = |new: &Object, field: &str| old.get(&["spec", field]) == new.get(&["spec", field]);
    if was.has_cluster_ip() && !is.has_cluster_ip() && unchanged(new, "clusterIP") && unchanged(new, "clusterIPs") {
        for field in ["clusterIP", "clusterIPs", "internalTrafficPolicy"] {
            new.remove(&["spec", field]);
        }
    }
    if needs_node_ports(old) && !needs_node_ports(new) && is != Type::LoadBalancer {
        for port in new.get_mut(&["spec", "ports"]).and_then(Value::as_array_mut).into_iter().flatten() {
            let kept = old.array(&["spec", "ports"]).iter().any(|other| node_port(other) == node_port(port));
            if let (true, Some(port)) = (kept, port.as_object_mut()) {
                port.remove("nodePort");
            }
        }
    }
    if needs_health_check_port(old) && !needs_health_check_port(new) && unchanged(new, "healthCheckNodePort") {
        new.remove(&["spec", "healthCheckNodePort"]);
    }
    if was.is_external() && !is.is_external() && unchanged(new, "externalTrafficPolicy") {
        new.remove(&["spec", "externalTrafficPolicy"]);
    }
    if was == Type::LoadBalancer && is != Type::LoadBalancer {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if unchanged(new, field) {
                new.remove(&["spec", field]);
            }
        }
    }
    if was == Type::ExternalName && is != Type::ExternalName && unchanged(new, "externalName") {
        new.remove(&["spec", "externalName"]);
    }
}

/// A client that does not repeat what it was given keeps it.
fn keep_allocated(old: &Object, new: &mut Object) {
    if Type::of(old) != Type::ExternalName && Type::of(new) != Type::ExternalName {
        let silent = |new: &Object, field: &str| new.get(&["spec", field]).is_none();
        for field in ["ipFamilyPolicy", "ipFamilies"] {
            if let (true, Some(value)) = (silent(new, field), old.get(&["spec", field])) {
                new.set(&["spec", field], value.clone());
            }
        }
    }
    if Type::of(old).has_cluster_ip() && Type::of(new).has_cluster_ip() {
        let silent = cluster_ip(new).is_empty() && new.array(&["spec", "clusterIPs"]).is_empty();
        for field in ["clusterIP", "clusterIPs"] {
            if let (true, Some(value)) = (silent, old.get(&["spec", field])) {
                new.set(&["spec", field], value.clone());
            }
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        let taken = spec::node_ports(new);
        for port in new.get_mut(&["spec", "ports"]).and_then(Value::as_array_mut).into_iter().flatten() {
            if node_port(port).is_some() {
                continue;
            }
            let same = old.array(&["spec", "ports"]).iter().find(|other| port_key(other) == port_key(port));
            if let Some(given) = same.and_then(node_port).filter(|given| !taken.contains(given))
                && let Some(port) = port.as_object_mut()
            {
                port.insert("nodePort".into(), given.into());
            }
        }
    }
    if needs_health_check_port(old)
        && needs_health_check_port(new)
        && new.get(&["spec", "healthCheckNodePort"]).is_none()
        && let Some(port) = old.get(&["spec", "healthCheckNodePort"])
    {
        new.set(&["spec", "healthCheckNodePort"], port.clone());
    }
}

fn reserve_addresses(reserved: &mut Reserved, old: Option<&Object>, new: &mut Object, errors: &mut ErrorList) {
    if !Type::of(new).has_cluster_ip() || is_headless(new) {
        return;
    }
    if text(new, "ipFamilyPolicy") == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        let path = Path::new("spec").child("ipFamilyPolicy");
        errors.push(FieldError::invalid(&path, "RequireDualStack", detail));
        return;
    }
    let wanted = cluster_ip(new).to_owned();
    let path = Path::new("spec").child("clusterIPs");
    if wanted.is_empty() {
        match reserved.any_address() {
            Ok(address) => {
                new.set(&["spec", "clusterIP"], address.to_string());
                new.set(&["spec", "clusterIPs"], json!([address.to_string()]));
            }
            Err(error) => errors.push(FieldError::internal(&path, error.to_string())),
        }
        return;
    }
    // What cannot be parsed is refused by the validation that follows.
    let Ok(address) = wanted.parse::<Ipv4Addr>() else { return };
    if old.is_some_and(|old| spec::addresses(old).contains(&address)) {
        return;
    }
    if let Err(error) = reserved.address(address) {
        errors.push(FieldError::invalid(&path, json!([wanted]), error.to_string()));
    }
}

fn reserve_ports(reserved: &mut Reserved, old: Option<&Object>, new: &mut Object, errors: &mut ErrorList) {
    let own = old.map(spec::node_ports).unwrap_or_default();
    let mut take = |wanted: Option<u16>| -> Result<u16, PoolError> {
        match wanted {
            None => reserved.any_port(),
            Some(port) if own.contains(&port) => Ok(port),
            Some(port) => reserved.port(port).map(|()| port),
        }
    };
    let ports_path = Path::new("spec").child("ports");
    let wants_all = needs_node_ports(new);
    // Ports that are chosen come first, so that none of them is given away as a free one.
    for chosen in [true, false] {
        let mut by_number: Vec<(i64, String, u16)> = new
            .array(&["spec", "ports"])
            .iter()
            .filter_map(|port| node_port(port).map(|given| (port_key(port).1, port_key(port).0, given)))
            .collect();
        let ports = new.get_mut(&["spec", "ports"]).and_then(Value::as_array_mut).into_iter().flatten();
        for (index, port) in ports.enumerate() {
            let wanted = node_port(port);
            if wanted.is_some() != chosen || (!chosen && !wants_all) {
                continue;
            }
            let (protocol, number) = port_key(port);
            // One number for several protocols of a port, as with DNS.
            let shared = by_number
                .iter()
                .find(|(other, of, given)| {
                    *other == number
                        && *of != protocol
                        && !by_number.iter().any(|(_, of, taken)| taken == given && *of == protocol)
                })
                .map(|(_, _, given)| *given);
            let taken = match (wanted, shared) {
                (None, Some(shared)) => Ok(shared),
                (wanted, _) => take(wanted),
            };
            match taken {
                Ok(given) => {
                    by_number.push((number, protocol, given));
                    if let Some(port) = port.as_object_mut() {
                        port.insert("nodePort".into(), given.into());
                    }
                }
                Err(error) => {
                    let path = ports_path.index(index).child("nodePort");
                    errors.push(FieldError::invalid(&path, wanted.unwrap_or_default(), error.to_string()));
                }
            }
        }
    }
    if needs_health_check_port(new) {
        let wanted = new.get(&["spec", "healthCheckNodePort"]).and_then(Value::as_u64);
        let wanted = wanted.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        match take(wanted) {
            Ok(port) => new.set(&["spec", "healthCheckNodePort"], port),
            Err(error) => {
                let path = Path::new("spec").child("healthCheckNodePort");
                errors.push(FieldError::invalid(&path, wanted.unwrap_or_default(), error.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Object {
        Object::try_from(json!({ "metadata": { "name": "s" }, "spec": spec })).unwrap()
    }

    fn updated(old: Value, new: Value) -> Object {
        let (old, mut new) = (service(old), service(new));
        drop_outlived_fields(&old, &mut new);
        keep_allocated(&old, &mut new);
        normalise_addresses(Some(&old), &mut new);
        new
    }

    #[test]
    fn silence_keeps_what_was_given() {
        let old = json!({"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "nodePort": 30001}, {"port": 81, "nodePort": 30002}]});
        let new = updated(old, json!({"type": "NodePort", "ports": [{"port": 81}, {"port": 82}]}));
        assert_eq!(cluster_ip(&new), "10.0.0.1");
        let ports: Vec<_> = new.array(&["spec", "ports"]).iter().map(node_port).collect();
        assert_eq!(ports, [Some(30002), None]);
    }

    #[test]
    fn another_type_loses_what_it_cannot_have() {
        let old = json!({"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "nodePort": 30001}]});
        let mut wanted = old.clone();
        wanted["type"] = "ClusterIP".into();
        let new = updated(old.clone(), wanted.clone());
        assert_eq!((cluster_ip(&new), spec::node_ports(&new)), ("10.0.0.1", vec![]));
        assert_eq!(text(&new, "externalTrafficPolicy"), "");
        wanted["type"] = "ExternalName".into();
        wanted["externalName"] = "example.org".into();
        let new = updated(old, wanted);
        assert_eq!((cluster_ip(&new), spec::addresses(&new)), ("", vec![]));
    }
}
