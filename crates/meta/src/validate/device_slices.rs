//! Checks of resource slices: the devices that a driver offers.

use super::devices::{binding_conditions, driver_name, fits, label, pool_name, qualified, unique};
use super::node::Node;
use super::{immutable, required};
use crate::field::{ErrorList, FieldError};
use crate::{Quantity, names};

const MAX_DEVICES: usize = 128;
/// Where devices have taints or share counters.
const MAX_ADVANCED_DEVICES: usize = 64;
const MAX_ATTRIBUTES: usize = 32;
const MAX_VALUE: usize = 64;
const MAX_TAINTS: usize = 16;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_OPTIONS: usize = 10;

pub(super) fn slice(slice: &Node<'_>, errors: &mut ErrorList) {
    let spec = slice.child("spec");
    driver_name(&spec.child("driver"), errors);
    let pool = spec.child("pool");
    pool_name(&pool.child("name"), errors);
    let (count, generation) = (pool.child("resourceSliceCount"), pool.child("generation"));
    if count.integer().unwrap_or_default() <= 0 {
        let number = count.integer().unwrap_or_default();
        errors.push(FieldError::invalid(&count.path, number, "must be greater than zero"));
    }
    if let Some(number) = generation.integer().filter(|number| *number < 0) {
        errors.push(FieldError::invalid(&generation.path, number, "must be greater than or equal to zero"));
    }
    nodes(&spec, &["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"], "", errors);
    let terms = spec.at(&["nodeSelector", "nodeSelectorTerms"]);
    if spec.child("nodeSelector").is_set() && terms.items().count() != 1 {
        let message = "must have exactly one node selector term";
        errors.push(FieldError::invalid(&terms.path, terms.value.clone(), message));
    }
    let (devices, counters) = (spec.child("devices"), spec.child("sharedCounters"));
    if devices.is_set() && counters.is_set() {
        let message = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(FieldError::invalid(&spec.path, "", message));
    }
    let advanced =
        devices.items().any(|device| ["taints", "consumesCounters"].iter().any(|m| !device.child(m).is_empty()));
    if fits(&devices, if advanced { MAX_ADVANCED_DEVICES } else { MAX_DEVICES }, errors) {
        let by_device = spec.child("perDeviceNodeSelection").is_true();
        devices.items().for_each(|device| self::device(&device, by_device, errors));
        unique(&devices, |device| device.child("name").text().to_owned(), errors);
    }
    if fits(&counters, MAX_COUNTER_SETS, errors) {
        for set in counters.items() {
            counter_set(&set.child("name"), &set.child("counters"), errors);
        }
        unique(&counters, |set| set.child("name").text().to_owned(), errors);
    }
}

pub(super) fn change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    for path in [&["pool", "name"] as &[&str], &["driver"], &["nodeName"]] {
        immutable(&new.child("spec").at(path), &old.child("spec").at(path), errors);
    }
}

/// Exactly one of the ways to say which nodes can use something.
fn nodes(node: &Node<'_>, ways: &[&str], when: &str, errors: &mut ErrorList) {
    let mut chosen = Vec::new();
    for way in ways {
        let value = node.child(way);
        if !value.is_set() {
            continue;
        }
        match (*way, value.value) {
            ("nodeName", _) if value.is_empty() => {
                let own = !when.is_empty();
                let message =
                    if own { "must not be empty" } else { "must be either unset or set to a non-empty string" };
                errors.push(FieldError::invalid(&value.path, "", message));
                continue;
            }
            ("nodeName", _) => {
                errors.invalid_each(&value.path, value.text(), names::dns1123_subdomain(value.text()));
            }
            ("nodeSelector", _) => super::scheduling::node_selector(&value, errors),
            (_, serde_json::Value::Bool(false)) => {
                errors.push(FieldError::invalid(&value.path, false, "must be either unset or set to true"));
                continue;
            }
            _ => {}
        }
        chosen.push(format!("`{way}`"));
    }
    let all: Vec<String> = ways.iter().map(|way| format!("`{way}`")).collect();
    let (list, more) = match (all.as_slice(), when) {
        ([first @ .., last], when) if !when.is_empty() => (format!("{}, or {last}", first.join(", ")), ""),
        (all, _) => (all.join(", "), ", but multiple fields are set"),
    };
    match chosen.as_slice() {
        [_] => {}
        [] => {
            let message = format!("exactly one of {list} is required{when}");
            errors.push(FieldError::required(&node.path, message));
        }
        several => {
            let message = format!("exactly one of {list} is required{when}{more}");
            errors.push(FieldError::invalid(&node.path, format!("{{{}}}", several.join(", ")), message));
        }
    }
}

fn device(device: &Node<'_>, by_device: bool, errors: &mut ErrorList) {
    const WHEN: &str = " when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    const WAYS: [&str; 3] = ["nodeName", "nodeSelector", "allNodes"];
    label(&device.child("name"), errors);
    let (attributes, capacity) = (device.child("attributes"), device.child("capacity"));
    let total = attributes.entries().count() + capacity.entries().count();
    if total > MAX_ATTRIBUTES {
        let message = format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}");
        errors.push(FieldError::invalid(&device.path, total, message));
    }
    for (name, attribute) in attributes.entries() {
        qualified(name, &attribute, errors);
        self::attribute(&attribute, errors);
    }
    let shared = device.child("allowMultipleAllocations").is_true();
    for (name, capacity) in capacity.entries() {
        qualified(name, &capacity, errors);
        let policy = capacity.child("requestPolicy");
        if policy.is_set() && !shared {
            errors.push(FieldError::forbidden(&policy.path, "allowMultipleAllocations must be true"));
        } else if policy.is_set() {
            request_policy(&capacity.child("value"), &policy, errors);
        }
    }
    let taints = device.child("taints");
    if fits(&taints, MAX_TAINTS, errors) {
        for taint in taints.items() {
            let (key, value) = (taint.child("key"), taint.child("value"));
            errors.invalid_each(&key.path, key.text(), names::qualified_name(key.text()));
            errors.invalid_each(&value.path, value.text(), names::label_value(value.text()));
            required(&taint.child("effect"), errors);
        }
    }
    let consumptions = device.child("consumesCounters");
    if fits(&consumptions, MAX_CONSUMPTIONS, errors) {
        for consumption in consumptions.items() {
            counter_set(&consumption.child("counterSet"), &consumption.child("counters"), errors);
        }
        unique(&consumptions, |consumption| consumption.child("counterSet").text().to_owned(), errors);
    }
    if by_device {
        nodes(device, &WAYS, WHEN, errors);
    } else if WAYS.iter().any(|way| device.child(way).is_set()) {
        let message = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        errors.push(FieldError::invalid(&device.path, serde_json::Value::Null, message));
    }
    binding_conditions(device, errors);
}

fn counter_set(name: &Node<'_>, counters: &Node<'_>, errors: &mut ErrorList) {
    if required(name, errors) {
        label(name, errors);
    }
    let count = counters.entries().count();
    if count == 0 {
        errors.push(FieldError::required(&counters.path, ""));
    } else if count > MAX_COUNTERS {
        errors.push(FieldError::too_many(&counters.path, count, MAX_COUNTERS));
        return;
    }
    for (name, counter) in counters.entries() {
        errors.invalid_each(&counter.path, name, names::dns1123_label(name));
    }
}

fn attribute(attribute: &Node<'_>, errors: &mut ErrorList) {
    for member in ["string", "version"] {
        let value = attribute.child(member);
        if member == "version" && value.is_set() && !is_semantic_version(value.text()) {
            let message = "must be a string compatible with semver.org spec 2.0.0";
            errors.push(FieldError::invalid(&value.path, value.text(), message));
        }
        if value.text().len() > MAX_VALUE {
            errors.push(FieldError::too_long(&value.path, MAX_VALUE));
        }
    }
    match ["bool", "int", "string", "version"].iter().filter(|member| attribute.child(member).is_set()).count() {
        1 => {}
        0 => errors.push(FieldError::invalid(&attribute.path, "", "exactly one value must be specified")),
        _ => {
            let value = attribute.value.clone();
            errors.push(FieldError::invalid(&attribute.path, value, "exactly one value must be specified"));
        }
    }
}

/// `1.2.3`, perhaps with a pre-release and a build, as semver.org's second version has it.
fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let numeric = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| !part.is_empty() && numeric(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (!numeric(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// Which shares of a capacity may be asked for.
fn request_policy(capacity: &Node<'_>, policy: &Node<'_>, errors: &mut ErrorList) {
    let (values, range, default) = (policy.child("validValues"), policy.child("validRange"), policy.child("default"));
    match (values.is_empty(), range.is_set()) {
        (false, true) => {
            let message = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            errors.push(FieldError::forbidden(&policy.path, message));
        }
        (false, false) if !default.is_set() => {
            errors.push(FieldError::required(&default.path, "required when validValues is defined"));
        }
        (true, true) if !default.is_set() => {
            errors.push(FieldError::required(&default.path, "required when validRange is defined"));
        }
        (false, false) => valid_values(capacity, &default, &values, errors),
        (true, true) => valid_range(capacity, &default, &range, errors),
        (true, false) => {}
    }
}

fn valid_values(capacity: &Node<'_>, default: &Node<'_>, values: &Node<'_>, errors: &mut ErrorList) {
    let options: Vec<(Node<'_>, Quantity)> = values.items().filter_map(|v| v.quantity().map(|q| (v, q))).collect();
    for pair in options.windows(2) {
        if let [(_, first), (node, second)] = pair
            && first > second
        {
            let message = "values must be sorted in ascending order";
            errors.push(FieldError::invalid(&node.path, second.to_string(), message));
        }
    }
    if !fits(values, MAX_OPTIONS, errors) {
        return;
    }
    let whole = capacity.quantity();
    for (node, option) in &options {
        if let Some(whole) = whole.as_ref().filter(|whole| option > whole) {
            let message = format!("option is larger than capacity value: {whole}");
            errors.push(FieldError::invalid(&node.path, option.to_string(), message));
        }
    }
    unique(values, |value| value.quantity().map(|q| q.value().to_string()).unwrap_or_default(), errors);
    let default = default.quantity();
    if let Some(default) = default.filter(|default| options.iter().all(|(_, option)| option != default)) {
        let message = "default value is not valid according to the requestPolicy";
        errors.push(FieldError::invalid(&values.path, default.to_string(), message));
    }
}

fn valid_range(capacity: &Node<'_>, default: &Node<'_>, range: &Node<'_>, errors: &mut ErrorList) {
    let [min_at, max_at, step_at] = ["min", "max", "step"].map(|member| range.child(member));
    let Some(min) = min_at.quantity() else {
        errors.push(FieldError::required(&min_at.path, "required when validRange is defined"));
        return;
    };
    let (Some(whole), Some(default)) = (capacity.quantity(), default.quantity()) else { return };
    let (max, step) = (max_at.quantity(), step_at.quantity());
    let mut check = |bad: bool, path: &crate::Path, value: &Quantity, message: String| {
        if bad {
            errors.push(FieldError::invalid(path, value.to_string(), message));
        }
    };
    check(min > whole, &min_at.path, &min, format!("min is larger than capacity value: {whole}"));
    check(default < min, &min_at.path, &default, format!("default is less than min: {min}"));
    if let Some(max) = &max {
        check(min > *max, &max_at.path, &min, format!("min is larger than max: {max}"));
        check(*max > whole, &max_at.path, max, format!("max is larger than capacity value: {whole}"));
        check(default > *max, &max_at.path, &default, format!("default is more than max: {max}"));
    }
    let Some(step) = step else { return };
    if step.sign() <= 0 || step.value() == 0 {
        return check(true, &step_at.path, &step, "must be greater than zero".into());
    }
    if let Some(added) = min.value().checked_add(step.value()).map(|sum| Quantity::new(sum, min.format())) {
        let message = format!("one step {added} is larger than capacity value: {whole}");
        check(added > whole, &step_at.path, &step, message);
    }
    for value in [Some(&default), max.as_ref()].into_iter().flatten() {
        let off = value.value().checked_sub(min.value()).and_then(|distance| distance.checked_rem(step.value()));
        let message = format!("value is not a multiple of a given step ({step}) from ({min})");
        check(off != Some(0), &step_at.path, value, message);
    }
}
