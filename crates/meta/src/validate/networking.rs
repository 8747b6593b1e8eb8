//! Checks of networking: ingresses, network policies, and the addresses of services.

use std::net::IpAddr;

use super::containers::range;
use super::node::Node;
use super::{Kind, immutable, label_selector, required};
use crate::field::{ErrorList, FieldError, Path};
use crate::{IntOrString, Object, names};

const GROUP: &str = "networking.k8s.io";
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const MAX_CONTROLLER: usize = 250;
/// What a path that is compared literally or by prefix may not have in it, and at its end.
const BAD_SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_SUFFIXES: [&str; 2] = ["/..", "/."];

pub(super) const KINDS: &[Kind] = &[
    Kind::new(GROUP, "NetworkPolicy", policy),
    Kind::new(GROUP, "Ingress", |_, _| {}).whole(ingress, |_, _| {}).created(class_is_one).status(|new, _, errors| {
        load_balancer(&new.at(&["status", "loadBalancer"]), errors);
    }),
    Kind::new(GROUP, "IngressClass", class).change(|new, old, errors| {
        immutable(&new.at(&["spec", "controller"]), &old.at(&["spec", "controller"]), errors);
    }),
    Kind::new(GROUP, "IPAddress", |_, _| {}).named(names::ip_address).created(address).change(|new, old, errors| {
        immutable(&new.at(&["spec", "parentRef"]), &old.at(&["spec", "parentRef"]), errors);
    }),
    Kind::new(GROUP, "ServiceCIDR", |_, _| {})
        .created(|range, errors| ranges(&range.at(&["spec", "cidrs"]), errors))
        .change(ranges_change),
];

fn policy(policy: &Node<'_>, errors: &mut ErrorList) {
    let spec = policy.child("spec");
    label_selector(&spec.child("podSelector"), errors);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.child(rules).items() {
            rule.child("ports").items().for_each(|port| policy_port(&port, errors));
            rule.child(peers).items().for_each(|peer| policy_peer(&peer, errors));
        }
    }
    let types = spec.child("policyTypes");
    if types.items().count() > 2 {
        errors.push(FieldError::invalid(&types.path, types.value.clone(), "may not specify more than two policyTypes"));
    }
}

fn policy_port(port: &Node<'_>, errors: &mut ErrorList) {
    let (number, end) = (port.child("port"), port.child("endPort"));
    let last = end.integer();
    let wrong_end = |value: i64, message: &str| FieldError::invalid(&end.path, value, message);
    match IntOrString::from_value(number.value) {
        Some(IntOrString::Int(first)) => {
            range(&number, names::port_number(first.into()), errors);
            let Some(last) = last else { return };
            if last < i64::from(first) {
                // Upstream shows the other end.
                errors.push(wrong_end(first.into(), "must be greater than or equal to `port`"));
            }
            range(&end, names::port_number(last), errors);
        }
        Some(IntOrString::String(name)) => {
            errors.extend(last.map(|last| wrong_end(last, "may not be specified when `port` is non-numeric")));
            range(&number, names::port_name(&name), errors);
        }
        None => {
            errors.extend(last.map(|last| wrong_end(last, "may not be specified when `port` is not specified")));
        }
    }
}

fn policy_peer(peer: &Node<'_>, errors: &mut ErrorList) {
    let [pods, namespaces, block] = ["podSelector", "namespaceSelector", "ipBlock"].map(|member| peer.child(member));
    label_selector(&pods, errors);
    label_selector(&namespaces, errors);
    let by_label = pods.is_set() || namespaces.is_set();
    if block.is_set() {
        ip_block(&block, errors);
    } else if !by_label {
        errors.push(FieldError::required(&peer.path, "must specify a peer"));
    }
    if block.is_set() && by_label {
        errors.push(FieldError::forbidden(&peer.path, "may not specify both ipBlock and another peer"));
    }
}

fn ip_block(block: &Node<'_>, errors: &mut ErrorList) {
    const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let whole = block.child("cidr");
    if !required(&whole, errors) {
        return;
    }
    let Some((network, length)) = names::parse_cidr(whole.text()) else {
        errors.push(FieldError::invalid(&whole.path, whole.text(), NO_RANGE));
        return;
    };
    let first = names::network(network, length);
    for except in block.child("except").items() {
        match names::parse_cidr(except.text()) {
            None => errors.push(FieldError::invalid(&except.path, except.text(), NO_RANGE)),
            Some((part, part_length)) => {
                let inside = part.is_ipv4() == first.is_ipv4() && names::network(part, length) == first;
                if !inside || length >= part_length {
                    let message = "must be a strict subset of `cidr`";
                    errors.push(FieldError::invalid(&except.path, except.text(), message));
                }
            }
        }
    }
}

/// An ingress, new or changed. What an old one got wrong in the names of secrets, or behind wildcards, may stay wrong.
fn ingress(new: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    let ingress = Node::root(new);
    let (spec, before) = (ingress.child("spec"), old.map(|old| Node::root(old).child("spec")));
    let default = spec.child("defaultBackend");
    if spec.child("rules").is_empty() && !default.is_set() {
        let message = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&spec.path, spec.child("rules").value.clone(), message));
    }
    if default.is_set() {
        backend(&default, errors);
    }
    let any_behind_wildcard = before.as_ref().is_some_and(|before| {
        let mut wrong = ErrorList::new();
        let rules = before.child("rules");
        rules.items().filter(|rule| rule.child("host").text().contains('*')).for_each(|rule| http(&rule, &mut wrong));
        !wrong.is_empty()
    });
    for rule in spec.child("rules").items() {
        let name = rule.child("host");
        if name.text().parse::<IpAddr>().is_ok() {
            errors.push(FieldError::invalid(&name.path, name.text(), "must be a DNS name, not an IP address"));
        }
        if !name.is_empty() {
            host(&name, errors);
        }
        if !(any_behind_wildcard && name.text().contains('*')) {
            http(&rule, errors);
        }
    }
    let any_secret = before.is_some_and(|before| {
        let mut wrong = ErrorList::new();
        before.child("tls").items().for_each(|tls| secret_name(&tls, &mut wrong));
        !wrong.is_empty()
    });
    for tls in spec.child("tls").items() {
        tls.child("hosts").items().for_each(|name| host(&name, errors));
        if !any_secret {
            secret_name(&tls, errors);
        }
    }
    let class = spec.child("ingressClassName");
    if class.is_set() {
        errors.invalid_each(&class.path, class.text(), names::dns1123_subdomain(class.text()));
    }
}

/// The paths of a rule.
fn http(rule: &Node<'_>, errors: &mut ErrorList) {
    let http = rule.child("http");
    let paths = http.child("paths");
    if http.is_set() && paths.is_empty() {
        errors.push(FieldError::required(&paths.path, ""));
    }
    paths.items().for_each(|entry| path(&entry, errors));
}

fn secret_name(tls: &Node<'_>, errors: &mut ErrorList) {
    let secret = tls.child("secretName");
    if !secret.is_empty() {
        errors.invalid_each(&secret.path, secret.text(), names::dns1123_subdomain(secret.text()));
    }
}

/// The class may be named by the field or, as of old, by an annotation; not by both differently.
fn class_is_one(ingress: &Node<'_>, errors: &mut ErrorList) {
    let by_annotation = ingress.at(&["metadata", "annotations", CLASS_ANNOTATION]);
    let by_field = ingress.at(&["spec", "ingressClassName"]);
    if by_annotation.is_set() && by_field.is_set() && by_annotation.value != by_field.value {
        let path = Path::new("annotations").child(CLASS_ANNOTATION);
        let message = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid(&path, by_annotation.text(), message));
    }
}

fn host(node: &Node<'_>, errors: &mut ErrorList) {
    let text = node.text();
    let messages =
        if text.contains('*') { names::wildcard_dns1123_subdomain(text) } else { names::dns1123_subdomain(text) };
    errors.invalid_each(&node.path, text, messages);
}

fn path(entry: &Node<'_>, errors: &mut ErrorList) {
    let (kind, path) = (entry.child("pathType"), entry.child("path"));
    if kind.is_empty() {
        errors.push(FieldError::required(&kind.path, "pathType must be specified"));
        return;
    }
    let mut wrong = |message: String| errors.push(FieldError::invalid(&path.path, path.text(), message));
    let literal = matches!(kind.text(), "Exact" | "Prefix");
    if !path.text().starts_with('/') && (literal || !path.is_empty()) {
        wrong("must be an absolute path".into());
    }
    if literal {
        for bad in BAD_SEQUENCES.into_iter().filter(|bad| path.text().contains(bad)) {
            wrong(format!("must not contain '{bad}'"));
        }
        for bad in BAD_SUFFIXES.into_iter().filter(|bad| path.text().ends_with(bad)) {
            wrong(format!("cannot end with '{bad}'"));
        }
    }
    backend(&entry.child("backend"), errors);
}

fn backend(backend: &Node<'_>, errors: &mut ErrorList) {
    let (service, resource) = (backend.child("service"), backend.child("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => {
            errors.push(FieldError::invalid(&backend.path, "", "cannot set both resource and service backends"));
        }
        (false, false) => {
            errors.push(FieldError::invalid(&backend.path, "", "resource or service backend is required"));
        }
        (false, true) => reference(&resource, errors),
        (true, false) => {
            let name = service.child("name");
            if required(&name, errors) {
                errors.invalid_each(&name.path, name.text(), names::dns1035_label(name.text()));
            }
            let (by_name, number) = (service.at(&["port", "name"]), service.at(&["port", "number"]));
            match (by_name.is_empty(), number.integer().unwrap_or_default()) {
                (true, 0) => errors.push(FieldError::required(&backend.path, "port name or number is required")),
                (true, value) => range(&number, names::port_number(value), errors),
                (false, 0) => errors.invalid_each(&by_name.path, by_name.text(), names::port_name(by_name.text())),
                (false, _) => {
                    let message = "cannot set both port name & port number";
                    errors.push(FieldError::invalid(&backend.path, "", message));
                }
            }
        }
    }
}

/// Group, kind and name of another object.
fn reference(node: &Node<'_>, errors: &mut ErrorList) {
    let group = node.child("apiGroup");
    if group.is_set() {
        errors.invalid_each(&group.path, group.text(), names::dns1123_subdomain(group.text()));
    }
    for (name, member) in ["kind", "name"].map(|name| (name, node.child(name))) {
        if member.is_empty() {
            errors.push(FieldError::required(&member.path, format!("{name} is required")));
        } else {
            errors.invalid_each(&member.path, member.text(), names::path_segment(member.text()));
        }
    }
}

fn load_balancer(status: &Node<'_>, errors: &mut ErrorList) {
    for entry in status.child("ingress").items() {
        let (ip, name) = (entry.child("ip"), entry.child("hostname"));
        if !ip.is_empty() && ip.text().parse::<IpAddr>().is_err() {
            let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(FieldError::invalid(&ip.path, ip.text(), message));
        }
        if !name.is_empty() {
            errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(name.text()));
            if name.text().parse::<IpAddr>().is_ok() {
                errors.push(FieldError::invalid(&name.path, name.text(), "must be a DNS name, not an IP address"));
            }
        }
    }
}

fn class(class: &Node<'_>, errors: &mut ErrorList) {
    let controller = class.at(&["spec", "controller"]);
    if required(&controller, errors) {
        if controller.text().len() > MAX_CONTROLLER {
            errors.push(FieldError::too_long(&controller.path, MAX_CONTROLLER));
        }
        for (part, message) in names::domain_prefixed_path(controller.text()) {
            errors.push(FieldError::invalid(&controller.path, part, message));
        }
    }
    let parameters = class.at(&["spec", "parameters"]);
    if !parameters.is_set() {
        return;
    }
    reference(&parameters, errors);
    let namespace = parameters.child("namespace");
    match parameters.child("scope").text() {
        "" => errors.push(FieldError::required(&parameters.path.child("scope"), "")),
        "Namespace" if namespace.is_set() => {
            errors.invalid_each(&namespace.path, namespace.text(), names::dns1123_label(namespace.text()));
        }
        "Namespace" => {
            errors.push(FieldError::required(&namespace.path, "`parameters.scope` is set to 'Namespace'"));
        }
        "Cluster" if namespace.is_set() => {
            errors.push(FieldError::forbidden(&namespace.path, "`parameters.scope` is set to 'Cluster'"));
        }
        "Cluster" => {}
        other => {
            let path = parameters.path.child("scope");
            errors.push(FieldError::not_supported(&path, other, &["Cluster", "Namespace"]));
        }
    }
}

fn address(address: &Node<'_>, errors: &mut ErrorList) {
    let parent = address.at(&["spec", "parentRef"]);
    if !parent.is_set() {
        errors.push(FieldError::required(&parent.path, ""));
        return;
    }
    let (group, namespace) = (parent.child("group"), parent.child("namespace"));
    if !group.is_empty() {
        errors.invalid_each(&group.path, group.text(), names::dns1123_subdomain(group.text()));
    }
    for member in [parent.child("resource"), parent.child("name")] {
        if required(&member, errors) {
            errors.invalid_each(&member.path, member.text(), names::path_segment(member.text()));
        }
    }
    errors.invalid_each(&namespace.path, namespace.text(), names::path_segment(namespace.text()));
}

fn ranges(list: &Node<'_>, errors: &mut ErrorList) {
    let texts: Vec<&str> = list.items().map(|item| item.text()).collect();
    if texts.is_empty() {
        errors.push(FieldError::required(&list.path, "at least one CIDR required"));
        return;
    }
    if texts.len() > 2 {
        errors.push(FieldError::invalid(&list.path, list.value.clone(), "may only hold up to 2 values"));
        return;
    }
    let families: Vec<bool> =
        texts.iter().filter_map(|text| names::parse_cidr(text)).map(|(address, _)| address.is_ipv4()).collect();
    if texts.len() == 2 && !matches!(families.as_slice(), [first, second] if first != second) {
        let message = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(&list.path, list.value.clone(), message));
        return;
    }
    for item in list.items() {
        errors.invalid_each(&item.path, item.text(), names::cidr(item.text()));
    }
}

/// A range stays; one of the other family may be added.
fn ranges_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (now, before) = (new.at(&["spec", "cidrs"]), old.at(&["spec", "cidrs"]));
    let (count, was) = (now.items().count(), before.items().count());
    if count != was && (was, count) != (1, 2) {
        immutable(&now, &before, errors);
        return;
    }
    now.items().zip(before.items()).for_each(|(now, before)| immutable(&now, &before, errors));
    if count != was {
        ranges(&now, errors);
    }
}
