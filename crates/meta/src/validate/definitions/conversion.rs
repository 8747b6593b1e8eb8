//! How versions of a custom resource are converted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Options;
use crate::field::{ErrorList, FieldError, Path};
use crate::validate::Node;
use crate::validate::webhooks::webhook_service;
use crate::{Object, names};

const RECOGNIZED: [&str; 2] = ["v1", "v1beta1"];

/// Whether one of the versions of ConversionReview is known here.
pub(super) fn is_recognized(versions: &[Value]) -> bool {
    versions.iter().any(|version| RECOGNIZED.iter().any(|known| version == known))
}

/// Whether a `caBundle`, in base64, is empty or holds certificates.
pub fn bundle_is_valid(bundle: &str) -> bool {
    let Ok(pem) = STANDARD.decode(bundle) else { return false };
    let text = String::from_utf8_lossy(&pem);
    let mut rest = text.as_ref();
    let mut found = 0;
    while let Some(at) = rest.find("-----BEGIN CERTIFICATE-----") {
        let body = rest.get(at + 27..).unwrap_or_default();
        let Some(end) = body.find("-----END CERTIFICATE-----") else { return false };
        let inner: String = body.get(..end).unwrap_or_default().split_whitespace().collect();
        // A certificate is a sequence in DER.
        if !STANDARD.decode(inner).is_ok_and(|der| der.len() > 64 && der.first() == Some(&0x30)) {
            return false;
        }
        found += 1;
        rest = body.get(end..).unwrap_or_default();
    }
    found > 0 || text.trim().is_empty()
}

pub(super) fn check(new: &Object, options: &Options, path: &Path, errors: &mut ErrorList) {
    let Some(conversion) = new.get(&["spec", "conversion"]) else { return };
    let webhook = conversion.get("webhook").filter(|webhook| webhook.is_object());
    let client = webhook.and_then(|webhook| webhook.get("clientConfig")).filter(|client| client.is_object());
    let versions = webhook.and_then(|webhook| webhook.get("conversionReviewVersions")).and_then(Value::as_array);
    let versions = versions.map(Vec::as_slice).unwrap_or_default();
    let (client_path, versions_path) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    match conversion.get("strategy").and_then(Value::as_str).unwrap_or_default() {
        "Webhook" => {
            check_client(client, options, &client_path, errors);
            check_review_versions(versions, options, &versions_path, errors);
            return;
        }
        "None" => {}
        "" => errors.push(FieldError::required(&path.child("strategy"), "")),
        other => errors.push(FieldError::not_supported(&path.child("strategy"), other, &["None", "Webhook"])),
    }
    let detail = "should not be set when strategy is not set to Webhook";
    if client.is_some() {
        errors.push(FieldError::forbidden(&client_path, detail));
    }
    if !versions.is_empty() {
        errors.push(FieldError::forbidden(&versions_path, detail));
    }
}

fn check_client(client: Option<&Value>, options: &Options, path: &Path, errors: &mut ErrorList) {
    let Some(client) = client else {
        errors.push(FieldError::required(path, "required when strategy is set to Webhook"));
        return;
    };
    let url = client.get("url").and_then(Value::as_str);
    let service = client.get("service").filter(|service| service.is_object());
    match (url, service) {
        (Some(url), None) => webhook_url(url, &path.child("url"), errors),
        (None, Some(service)) => webhook_service(&Node::new(service, path.child("service")), errors),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
    let bundle = client.get("caBundle").and_then(Value::as_str).unwrap_or_default();
    if !bundle.is_empty() && !options.any_ca_bundle && !bundle_is_valid(bundle) {
        let detail = "unable to load root certificates: unable to parse bytes as PEM block";
        errors.push(FieldError::invalid(&path.child("caBundle"), bundle, detail));
    }
}

/// Checks the URL of a webhook: HTTPS, a host, and nothing that would be lost.
pub fn webhook_url(text: &str, path: &Path, errors: &mut ErrorList) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once(':').unwrap_or(("", rest));
    let authority = rest.strip_prefix("//").map(|rest| rest.split('/').next().unwrap_or_default()).unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(FieldError::invalid(path, scheme, detail));
    }
    if host.is_empty() {
        errors.push(FieldError::invalid(path, "", format!("host must be specified{FORM}")));
    }
    if let Some(user) = user {
        errors.push(FieldError::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(FieldError::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(FieldError::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

fn check_review_versions(versions: &[Value], options: &Options, path: &Path, errors: &mut ErrorList) {
    if versions.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        if versions.iter().take(index).any(|earlier| earlier == version) {
            errors.push(FieldError::invalid(&path, version.clone(), "duplicate version"));
            continue;
        }
        let text = version.as_str().unwrap_or_default();
        errors.invalid_each(&path, text, names::dns1035_label(text));
    }
    if options.recognized_review_version && !is_recognized(versions) {
        let detail = format!("must include at least one of {}", RECOGNIZED.join(", "));
        errors.push(FieldError::invalid(path, versions.to_vec(), detail));
    }
}
