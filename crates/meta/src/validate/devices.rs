//! Checks of dynamic resource allocation: claims of devices. Whether CEL selectors compile is for the server to say.

use std::collections::HashMap;

use super::node::Node;
use super::{Kind, conditions, device_slices, immutable, required};
use crate::field::{ErrorList, FieldError, quote};
use crate::names;

const GROUP: &str = "resource.k8s.io";
const MAX_REQUESTS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;
const MAX_CONFIGS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_SUBREQUESTS: usize = 8;
const MAX_RESULTS: usize = 32;
const MAX_RESERVED: usize = 256;
const MAX_STATUS_CONDITIONS: usize = 8;
const MAX_BINDING_CONDITIONS: usize = 4;
const MAX_IPS: usize = 16;
/// In bytes, as all that follow.
const MAX_EXPRESSION: usize = 10 << 10;
const MAX_PARAMETERS: usize = 10 << 10;
const MAX_DRIVER_NAME: usize = 63;
const MAX_ID: usize = 32;
const MAX_INTERFACE_NAME: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// Where the configuration of an allocated device comes from.
const SOURCES: [&str; 2] = ["FromClaim", "FromClass"];

pub(super) const KINDS: &[Kind] = &[
    Kind::new(GROUP, "DeviceClass", class),
    Kind::new(GROUP, "ResourceClaim", |_, _| {})
        .created(|object, errors| claim(&object.child("spec"), errors))
        .change(spec_stays)
        .status(claim_status),
    Kind::new(GROUP, "ResourceClaimTemplate", |_, _| {})
        .created(|template, errors| {
            let metadata = template.at(&["spec", "metadata"]);
            super::labels(&metadata.child("labels"), errors);
            super::meta::annotations(&metadata.child("annotations"), errors);
            claim(&template.at(&["spec", "spec"]), errors);
        })
        .change(spec_stays),
    Kind::new(GROUP, "ResourceSlice", device_slices::slice).change(device_slices::change),
];

/// The requests of a claim, each with its alternatives.
type Requests<'a> = HashMap<&'a str, Vec<&'a str>>;

fn spec_stays(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    immutable(&new.child("spec"), &old.child("spec"), errors);
}

/// Whether a list is short enough to be looked at; says so if it is not.
pub(super) fn fits(list: &Node<'_>, max: usize, errors: &mut ErrorList) -> bool {
    let count = list.items().count();
    if count > max {
        errors.push(FieldError::too_many(&list.path, count, max));
    }
    count <= max
}

/// Elements that say the same of `key` as one before them.
pub(super) fn unique<'a>(list: &Node<'a>, key: impl Fn(&Node<'a>) -> String, errors: &mut ErrorList) {
    let mut seen = Vec::new();
    for item in list.items() {
        let key = key(&item);
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(&item.path, key));
        } else {
            seen.push(key);
        }
    }
}

pub(super) fn driver_name(name: &Node<'_>, errors: &mut ErrorList) {
    if required(name, errors) {
        driver(name.text(), name, errors);
    }
}

fn driver(name: &str, at: &Node<'_>, errors: &mut ErrorList) {
    if name.len() > MAX_DRIVER_NAME {
        errors.push(FieldError::too_long(&at.path, MAX_DRIVER_NAME));
    }
    errors.invalid_each(&at.path, name, names::dns1123_subdomain(&name.to_lowercase()));
}

pub(super) fn pool_name(name: &Node<'_>, errors: &mut ErrorList) {
    if required(name, errors) {
        if name.text().len() > names::SUBDOMAIN_MAX {
            errors.push(FieldError::too_long(&name.path, names::SUBDOMAIN_MAX));
        }
        for part in name.text().split('/') {
            errors.invalid_each(&name.path, part, names::dns1123_subdomain(part));
        }
    }
}

pub(super) fn label(name: &Node<'_>, errors: &mut ErrorList) {
    errors.invalid_each(&name.path, name.text(), names::dns1123_label(name.text()));
}

/// The name of an attribute or capacity: an identifier, perhaps behind a domain. More parts are not looked at, as upstream does.
pub(super) fn qualified(text: &str, at: &Node<'_>, errors: &mut ErrorList) {
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [id] => identifier(id, at, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(&at.path, "", "the domain must not be empty"));
            } else {
                driver(domain, at, errors);
            }
            if id.is_empty() {
                errors.push(FieldError::invalid(&at.path, "", "the name must not be empty"));
            } else {
                identifier(id, at, errors);
            }
        }
        _ => {}
    }
}

fn identifier(id: &str, at: &Node<'_>, errors: &mut ErrorList) {
    if id.len() > MAX_ID {
        errors.push(FieldError::too_long(&at.path, MAX_ID));
    }
    errors.invalid_each(&at.path, id, names::c_identifier(id));
}

fn class(class: &Node<'_>, errors: &mut ErrorList) {
    let spec = class.child("spec");
    selectors(&spec.child("selectors"), errors);
    let configs = spec.child("config");
    if fits(&configs, MAX_CONFIGS, errors) {
        configs.items().for_each(|config| configuration(&config, errors));
    }
    let resource = spec.child("extendedResourceName");
    if resource.is_set() && !is_extended_resource(resource.text()) {
        errors.push(FieldError::invalid(&resource.path, resource.text(), "must be a valid extended resource name"));
    }
}

fn is_extended_resource(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    let quota = format!("requests.{name}");
    !native && !name.starts_with("requests.") && names::qualified_name(&quota).is_empty()
}

fn selectors(list: &Node<'_>, errors: &mut ErrorList) {
    if !fits(list, MAX_SELECTORS, errors) {
        return;
    }
    for selector in list.items() {
        let cel = selector.child("cel");
        let expression = cel.child("expression");
        if !cel.is_set() {
            errors.push(FieldError::required(&cel.path, ""));
        } else if expression.text().len() > MAX_EXPRESSION {
            errors.push(FieldError::too_long(&expression.path, MAX_EXPRESSION));
        } else if expression.text().trim().is_empty() {
            errors.push(FieldError::required(&expression.path, ""));
        }
    }
}

fn configuration(config: &Node<'_>, errors: &mut ErrorList) {
    let opaque = config.child("opaque");
    if !opaque.is_set() {
        errors.push(FieldError::required(&opaque.path, ""));
        return;
    }
    driver_name(&opaque.child("driver"), errors);
    let parameters = opaque.child("parameters");
    if !parameters.is_set() {
        errors.push(FieldError::required(&parameters.path, ""));
    } else {
        raw(&parameters, errors);
    }
}

/// JSON of somebody else's.
fn raw(node: &Node<'_>, errors: &mut ErrorList) {
    if node.value.to_string().len() > MAX_PARAMETERS {
        errors.push(FieldError::too_long(&node.path, MAX_PARAMETERS));
    } else if !node.value.is_object() {
        errors.push(FieldError::invalid(&node.path, "<value omitted>", "must be a valid JSON object"));
    }
}

fn claim(spec: &Node<'_>, errors: &mut ErrorList) {
    let devices = spec.child("devices");
    let (requests, constraints, configs) =
        (devices.child("requests"), devices.child("constraints"), devices.child("config"));
    let known = request_names(&devices);
    if fits(&requests, MAX_REQUESTS, errors) {
        requests.items().for_each(|request| self::request(&request, errors));
        unique(&requests, |request| request.child("name").text().to_owned(), errors);
    }
    if fits(&constraints, MAX_CONSTRAINTS, errors) {
        for constraint in constraints.items() {
            references(&constraint.child("requests"), &known, errors);
            let (matching, distinct) = (constraint.child("matchAttribute"), constraint.child("distinctAttribute"));
            let attribute = if matching.is_set() { &matching } else { &distinct };
            if attribute.is_set() {
                qualified(attribute.text(), attribute, errors);
                if !attribute.text().contains('/') {
                    let message = "a fully qualified name must be a domain and a name separated by a slash";
                    errors.push(FieldError::invalid(&attribute.path, attribute.text(), message));
                }
            } else {
                errors.push(FieldError::required(&matching.path, ""));
            }
        }
    }
    if fits(&configs, MAX_CONFIGS, errors) {
        for config in configs.items() {
            references(&config.child("requests"), &known, errors);
            configuration(&config, errors);
        }
    }
}

fn request_names<'a>(devices: &Node<'a>) -> Requests<'a> {
    let name = |node: &Node<'a>| node.child("name").text();
    let requests = devices.child("requests");
    requests.items().map(|r| (name(&r), r.child("firstAvailable").items().map(|s| name(&s)).collect())).collect()
}

fn request(request: &Node<'_>, errors: &mut ErrorList) {
    label(&request.child("name"), errors);
    let (exactly, alternatives) = (request.child("exactly"), request.child("firstAvailable"));
    match (exactly.is_set(), !alternatives.is_empty()) {
        (false, false) => {
            let message = "exactly one of `exactly` or `firstAvailable` is required";
            errors.push(FieldError::required(&request.path, message));
        }
        (true, true) => {
            let message = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(&request.path, serde_json::Value::Null, message));
        }
        (true, false) => wanted(&exactly, errors),
        (false, true) => {
            if fits(&alternatives, MAX_SUBREQUESTS, errors) {
                for alternative in alternatives.items() {
                    label(&alternative.child("name"), errors);
                    wanted(&alternative, errors);
                }
                unique(&alternatives, |request| request.child("name").text().to_owned(), errors);
            }
        }
    }
}

/// Which devices, and how many.
fn wanted(request: &Node<'_>, errors: &mut ErrorList) {
    let class = request.child("deviceClassName");
    if required(&class, errors) {
        errors.invalid_each(&class.path, class.text(), names::dns1123_subdomain(class.text()));
    }
    selectors(&request.child("selectors"), errors);
    let (mode, count) = (request.child("allocationMode"), request.child("count"));
    let number = count.integer().unwrap_or_default();
    match mode.text() {
        "All" if number != 0 => {
            let message = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(&count.path, number, message));
        }
        "ExactCount" if number <= 0 => {
            errors.push(FieldError::invalid(&count.path, number, "must be greater than zero"));
        }
        _ => {}
    }
    tolerations(&request.child("tolerations"), errors);
    for (name, amount) in request.at(&["capacity", "requests"]).entries() {
        qualified(name, &amount, errors);
    }
}

fn tolerations(list: &Node<'_>, errors: &mut ErrorList) {
    for toleration in list.items() {
        let (key, operator, value) = (toleration.child("key"), toleration.child("operator"), toleration.child("value"));
        if !key.is_empty() {
            errors.invalid_each(&key.path, key.text(), names::qualified_name(key.text()));
        }
        match operator.text() {
            "" => errors.push(FieldError::required(&operator.path, "")),
            "Exists" if !value.is_empty() => {
                errors.push(FieldError::invalid(&value.path, value.text(), "must be empty for operator `Exists`"));
            }
            "Equal" => errors.invalid_each(&value.path, value.text(), names::label_value(value.text())),
            _ => {}
        }
    }
}

/// Names of requests.
fn references(list: &Node<'_>, known: &Requests<'_>, errors: &mut ErrorList) {
    if fits(list, MAX_REQUESTS, errors) {
        list.items().for_each(|name| reference(&name, known, errors));
        unique(list, |name| name.text().to_owned(), errors);
    }
}

fn reference(name: &Node<'_>, known: &Requests<'_>, errors: &mut ErrorList) {
    let parts: Vec<&str> = name.text().split('/').collect();
    let found = match parts.as_slice() {
        [request] => known.contains_key(request),
        [request, alternative] => known.get(request).is_some_and(|all| all.contains(alternative)),
        _ => false,
    };
    if parts.len() <= 2 {
        parts.iter().for_each(|part| errors.invalid_each(&name.path, part, names::dns1123_label(part)));
    }
    if !found {
        errors.push(FieldError::invalid(&name.path, name.text(), NO_REQUEST));
    }
}

fn claim_status(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (status, before) = (new.child("status"), old.child("status"));
    let known = request_names(&new.at(&["spec", "devices"]));
    let (reserved, allocation) = (status.child("reservedFor"), status.child("allocation"));
    if fits(&reserved, MAX_RESERVED, errors) {
        for consumer in reserved.items() {
            for member in ["resource", "name", "uid"] {
                required(&consumer.child(member), errors);
            }
        }
        unique(&reserved, |consumer| consumer.child("uid").text().to_owned(), errors);
    }
    let results = allocation.at(&["devices", "results"]);
    let allocated: Vec<String> = results.items().map(|result| device_id(&result)).collect();
    let devices = status.child("devices");
    devices.items().for_each(|device| device_status(&device, &allocated, errors));
    unique(&devices, device_id, errors);
    if !reserved.is_empty() {
        let held: Vec<_> = before.child("reservedFor").items().map(|consumer| consumer.value.clone()).collect();
        let deleting = new.at(&["metadata", "deletionTimestamp"]).is_set();
        if !allocation.is_set() {
            let message = "may not be specified when `allocated` is not set";
            errors.push(FieldError::forbidden(&reserved.path, message));
        } else if deleting && reserved.items().any(|consumer| !held.contains(consumer.value)) {
            let message = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(FieldError::forbidden(&reserved.path, message));
        }
    }
    let present = before.child("allocation");
    if present.is_set() && allocation.is_set() {
        immutable(&allocation, &present, errors);
    } else if allocation.is_set() {
        self::allocation(&allocation, &known, errors);
    }
}

fn allocation(allocation: &Node<'_>, known: &Requests<'_>, errors: &mut ErrorList) {
    let (results, configs) = (allocation.at(&["devices", "results"]), allocation.at(&["devices", "config"]));
    if fits(&results, MAX_RESULTS, errors) {
        for result in results.items() {
            reference(&result.child("request"), known, errors);
            driver_name(&result.child("driver"), errors);
            pool_name(&result.child("pool"), errors);
            label(&result.child("device"), errors);
            binding_conditions(&result, errors);
        }
    }
    if fits(&configs, 2 * MAX_CONFIGS, errors) {
        for config in configs.items() {
            let source = config.child("source");
            if required(&source, errors) && !SOURCES.contains(&source.text()) {
                errors.push(FieldError::not_supported(&source.path, source.text(), &SOURCES));
            }
            references(&config.child("requests"), known, errors);
            configuration(&config, errors);
        }
    }
    super::scheduling::node_selector(&allocation.child("nodeSelector"), errors);
}

/// What must hold before a pod is bound, and what ends the attempt.
pub(super) fn binding_conditions(device: &Node<'_>, errors: &mut ErrorList) {
    let (good, bad) = (device.child("bindingConditions"), device.child("bindingFailureConditions"));
    for list in [&good, &bad] {
        if fits(list, MAX_BINDING_CONDITIONS, errors) {
            for name in list.items() {
                errors.invalid_each(&name.path, name.text(), names::qualified_name(name.text()));
            }
        }
    }
    unique(&good, |name| name.text().to_owned(), errors);
    unique(&bad, |name| name.text().to_owned(), errors);
    for name in bad.items().filter(|name| good.items().any(|good| good.value == name.value)) {
        let message = "bindingFailureConditions must not overlap with bindingConditions";
        errors.push(FieldError::invalid(&name.path, name.text(), message));
    }
    const GOOD: &str = "bindingConditions";
    const BAD: &str = "bindingFailureConditions";
    let one_sided = match (good.is_empty(), bad.is_empty()) {
        (true, false) => Some((&good, GOOD, BAD)),
        (false, true) => Some((&bad, BAD, GOOD)),
        _ => None,
    };
    if let Some((absent, name, present)) = one_sided {
        let message = format!("{name} are required to use {present}");
        errors.push(FieldError::invalid(&absent.path, absent.value.clone(), message));
    }
}

/// Driver, pool, device and share of what was allocated.
fn device_id(device: &Node<'_>) -> String {
    let parts: Vec<&str> = ["driver", "pool", "device", "shareID"].map(|m| device.child(m).text()).into();
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

fn device_status(device: &Node<'_>, allocated: &[String], errors: &mut ErrorList) {
    driver_name(&device.child("driver"), errors);
    pool_name(&device.child("pool"), errors);
    label(&device.child("device"), errors);
    let id = device_id(device);
    if !allocated.contains(&id) {
        errors.push(FieldError::invalid(&device.path, id, "must be an allocated device in the claim"));
    }
    let list = device.child("conditions");
    fits(&list, MAX_STATUS_CONDITIONS, errors);
    conditions(&list, errors);
    if device.child("data").is_set() {
        raw(&device.child("data"), errors);
    }
    let network = device.child("networkData");
    for (member, max) in [("interfaceName", MAX_INTERFACE_NAME), ("hardwareAddress", MAX_HARDWARE_ADDRESS)] {
        let text = network.child(member);
        if text.text().len() > max {
            errors.push(FieldError::too_long(&text.path, max));
        }
    }
    let addresses = network.child("ips");
    if fits(&addresses, MAX_IPS, errors) {
        for address in addresses.items() {
            let text = address.text();
            let message = match names::parse_cidr(text).map(|(ip, bits)| format!("{ip}/{bits}")) {
                None => "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_owned(),
                Some(canonical) if canonical != text => format!("must be in canonical form ({})", quote(&canonical)),
                Some(_) => continue,
            };
            errors.push(FieldError::invalid(&address.path, text, message));
        }
        unique(&addresses, |address| address.text().to_owned(), errors);
    }
}
