//! Checks of certificate signing requests. Whether the request and the certificate can be read is for the server to say.

use std::collections::BTreeSet;

use super::node::Node;
use super::{Kind, required};
use crate::field::{ErrorList, FieldError, Path, quote};
use crate::names;

pub(super) const KINDS: &[Kind] = &[Kind::new("certificates.k8s.io", "CertificateSigningRequest", request)
    .named(names::path_segment)
    .change(change)
    .status(|new, old, errors| {
        request(new, errors);
        change(new, old, errors);
    })];

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// In seconds.
const MIN_LIFE: i64 = 600;
/// Conditions that are true where they are at all, and that stay.
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];
const MAX_SIGNER: usize = names::SUBDOMAIN_MAX + 1 + names::SUBDOMAIN_MAX + 1 + names::LABEL_MAX;

fn request(request: &Node<'_>, errors: &mut ErrorList) {
    let spec = request.child("spec");
    let (usages, signer, life) = (spec.child("usages"), spec.child("signerName"), spec.child("expirationSeconds"));
    if usages.is_empty() {
        errors.push(FieldError::required(&usages.path, ""));
    }
    let mut seen = BTreeSet::new();
    for usage in usages.items() {
        if !seen.insert(usage.text()) {
            errors.push(FieldError::duplicate(&usage.path, usage.text()));
        }
    }
    if signer.text() == LEGACY_SIGNER {
        let message = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid(&signer.path, signer.text(), message));
    } else {
        signer_name(&signer, errors);
    }
    if let Some(seconds) = life.integer().filter(|seconds| *seconds < MIN_LIFE) {
        let message = format!("may not specify a duration less than {MIN_LIFE} seconds (10 minutes)");
        errors.push(FieldError::invalid(&life.path, seconds, message));
    }
    conditions(&request.at(&["status", "conditions"]), errors);
}

/// A domain and a path behind it, such as `example.com/signer-name`.
pub(super) fn signer_name(node: &Node<'_>, errors: &mut ErrorList) {
    if !required(node, errors) {
        return;
    }
    let text = node.text();
    let parts: Vec<&str> = text.split('/').collect();
    let [domain, path] = parts.as_slice() else {
        let message = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(&node.path, text, message));
        return;
    };
    if domain.len() > names::SUBDOMAIN_MAX {
        errors.push(FieldError::too_long(&node.path, names::SUBDOMAIN_MAX));
    }
    let mut labels = |part: &str, check: fn(&str) -> Vec<String>| {
        let first = part.split('.').map(|label| (label, check(label))).find(|(_, messages)| !messages.is_empty());
        for (label, message) in first.into_iter().flat_map(|(label, all)| all.into_iter().map(move |m| (label, m))) {
            let message = format!("validating label {}: {message}", quote(label));
            errors.push(FieldError::invalid(&node.path, part, message));
        }
    };
    labels(domain, names::dns1123_label);
    labels(path, names::dns1123_subdomain);
    if !domain.contains('.') {
        let message = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(&node.path, *domain, message));
    }
    if text.len() > MAX_SIGNER {
        errors.push(FieldError::too_long(&node.path, MAX_SIGNER));
    }
}

fn conditions(list: &Node<'_>, errors: &mut ErrorList) {
    let mut seen = Vec::new();
    for condition in list.items() {
        let (kind, status) = (condition.child("type"), condition.child("status"));
        required(&kind, errors);
        let allowed: &[&str] = if LASTING.contains(&kind.text()) { &["True"] } else { &["False", "True", "Unknown"] };
        if required(&status, errors) && !allowed.contains(&status.text()) {
            errors.push(FieldError::not_supported(&status.path, status.text(), allowed));
        }
        let excluded = match kind.text() {
            "Approved" => seen.contains(&"Denied"),
            "Denied" => seen.contains(&"Approved"),
            _ => false,
        };
        if excluded {
            let message = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(&list.path, kind.text(), message));
        }
        if seen.contains(&kind.text()) {
            errors.push(FieldError::duplicate(&kind.path, kind.text()));
        }
        seen.push(kind.text());
    }
}

/// What was decided stays decided, and a certificate that was issued stays.
fn change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let count = |request: &Node<'_>, kind: &str| {
        let conditions = request.at(&["status", "conditions"]);
        conditions.items().filter(|condition| condition.child("type").text() == kind).count()
    };
    let path = Path::new("status").child("conditions");
    for kind in LASTING {
        if count(new, kind) < count(old, kind) {
            let message = format!("updates may not remove a condition of type {}", quote(kind));
            errors.push(FieldError::forbidden(&path, message));
        }
    }
    let (now, before) = (new.at(&["status", "certificate"]), old.at(&["status", "certificate"]));
    if !before.is_empty() && now.value != before.value {
        errors.push(FieldError::forbidden(&now.path, "updates may not modify existing certificate content"));
    }
}
