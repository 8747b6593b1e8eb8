//! CustomResourceDefinitions.
//!
//! Upstream checks them in an internal form, where what all versions say alike stands once beside them: errors name fields of that form
//! (`spec.validation.openAPIV3Schema` of a definition with one version), and so do these.
//!
//! What an existing definition got wrong before a rule existed may stay wrong: such rules hold only if the old definition kept them.

mod conversion;
mod defaults;
mod parts;
mod schema;
mod structural;

use std::collections::HashSet;

use serde_json::Value;

use crate::field::{ErrorList, FieldError, Path};
use crate::{Object, names};

pub use conversion::{bundle_is_valid, webhook_url};
pub use structural::violations;

/// Annotation by which a definition in a group of Kubernetes' own says where it was approved.
pub const APPROVED: &str = "api-approved.kubernetes.io";

pub(super) const KINDS: &[super::Kind] =
    &[super::Kind::new("apiextensions.k8s.io", "CustomResourceDefinition", |_, _| {})
        .whole(check, check_status)
        .any_finalizers()];

/// Rules that an old definition may be excused from.
struct Options {
    recognized_review_version: bool,
    immutable_names: bool,
    every_version_has_schema: bool,
    known_types: bool,
    structural: bool,
    pruned_defaults: bool,
    atomic_sets: bool,
    sound_list_keys: bool,
    any_ca_bundle: bool,
    /// Versions (empty for all alike) whose selectable fields may be too many.
    many_selectable: HashSet<String>,
}

impl Options {
    fn of(new: &Object, old: Option<&Object>) -> Self {
        let Some(old) = old else {
            return Self {
                recognized_review_version: true,
                immutable_names: false,
                every_version_has_schema: true,
                known_types: true,
                structural: true,
                pruned_defaults: true,
                atomic_sets: true,
                sound_list_keys: true,
                any_ca_bundle: true,
                many_selectable: HashSet::new(),
            };
        };
        let schemas: Vec<&Value> = old.array(&["spec", "versions"]).iter().filter_map(schema_of).collect();
        let review_versions = old.array(&["spec", "conversion", "webhook", "conversionReviewVersions"]);
        let established = condition(old, "Established") == Some("True");
        let bundle = old.str(&["spec", "conversion", "webhook", "clientConfig", "caBundle"]).unwrap_or_default();
        let has = |wrong: fn(&Value) -> bool| schemas.iter().any(|schema| schema::has(schema, &wrong));
        Self {
            recognized_review_version: review_versions.is_empty() || conversion::is_recognized(review_versions),
            immutable_names: established,
            every_version_has_schema: old.array(&["spec", "versions"]).len() == schemas.len(),
            known_types: !has(schema::has_unknown_type),
            structural: schemas.iter().all(|schema| structural::violations(&Path::root(), schema).is_empty()),
            pruned_defaults: schemas.iter().all(|schema| defaults::unknown_fields(schema).is_empty()),
            atomic_sets: !has(schema::is_granular_set),
            sound_list_keys: !has(|node| !schema::list_keys(node, &Path::root()).is_empty()),
            any_ca_bundle: !established || !bundle_is_valid(bundle),
            many_selectable: parts::excused(new, old),
        }
    }
}

/// Checks a definition, new or changed.
fn check(new: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    let text = |path: &[&str]| new.str(path).unwrap_or_default();
    let (group, plural) = (text(&["spec", "group"]), text(&["spec", "names", "plural"]));
    if old.is_none() && new.name() != format!("{plural}.{group}") {
        let path = Path::new("metadata").child("name");
        errors.push(FieldError::invalid(&path, new.name(), "must be spec.names.plural+\".\"+spec.group"));
    }
    let options = Options::of(new, old);
    check_group(group, &spec.child("group"), errors);
    match text(&["spec", "scope"]) {
        "Cluster" | "Namespaced" => {}
        "" => errors.push(FieldError::required(&spec.child("scope"), "")),
        other => errors.push(FieldError::not_supported(&spec.child("scope"), other, &["Cluster", "Namespaced"])),
    }
    check_versions(new, &options, &spec, errors);
    check_names(new, &["spec", "names"], true, errors);
    parts::check_common(new, &options, &spec, errors);
    conversion::check(new, &options, &spec.child("conversion"), errors);
    if let Some(old) = old {
        check_immutable(new, old, options.immutable_names, errors);
    }
    check_names(new, &["status", "acceptedNames"], false, errors);
    check_stored_versions(new, errors);
    check_approval(new, old, errors);
    let preserve = |object: &Object| object.bool(&["spec", "preserveUnknownFields"]) == Some(true);
    if preserve(new) && !old.is_some_and(preserve) {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(&spec.child("preserveUnknownFields"), true, detail));
    }
}

/// Checks what a change through the `status` door may set.
fn check_status(new: &Object, errors: &mut ErrorList) {
    check_names(new, &["status", "acceptedNames"], false, errors);
}

fn check_group(group: &str, path: &Path, errors: &mut ErrorList) {
    let wrong = names::dns1123_subdomain(group);
    if group.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !wrong.is_empty() {
        errors.push(FieldError::invalid(path, group, wrong.join(",")));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid(path, group, "should be a domain with at least one dot"));
    }
}

fn check_versions(new: &Object, options: &Options, spec: &Path, errors: &mut ErrorList) {
    let versions = new.array(&["spec", "versions"]);
    let path = spec.child("versions");
    if options.every_version_has_schema {
        for (index, _) in versions.iter().enumerate().filter(|(_, version)| schema_of(version).is_none()) {
            let path = path.index(index).children(&["schema", "openAPIV3Schema"]);
            errors.push(FieldError::required(&path, ""));
        }
    }
    for (index, version) in versions.iter().enumerate() {
        let name = version.get("name").and_then(Value::as_str).unwrap_or_default();
        let wrong = names::dns1035_label(name);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(&path.index(index).child("name"), name, wrong.join(",")));
        }
        parts::check_version(new, version, options, &path.index(index), errors);
    }
    let mut known: Vec<&Value> = versions.iter().filter_map(|version| version.get("name")).collect();
    known.sort_by_key(|name| name.as_str().map(str::to_owned));
    known.dedup();
    if known.len() != versions.len() {
        errors.push(FieldError::invalid(&path, versions.to_vec(), "must contain unique version names"));
    }
    let stored = versions.iter().filter(|version| version.get("storage").and_then(Value::as_bool) == Some(true));
    if stored.count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(&path, versions.to_vec(), detail));
    }
}

/// The names of the resource: in spec, where some are required, or those that were accepted.
fn check_names(new: &Object, at: &[&str; 2], required: bool, errors: &mut ErrorList) {
    let path = Path::new(at[0]).child(at[1]);
    let text = |member: &str| new.str(&[at[0], at[1], member]).unwrap_or_default();
    let members = ["plural", "singular", "kind", "listKind"];
    for member in members.iter().filter(|member| required && text(member).is_empty()) {
        errors.push(FieldError::required(&path.child(member), ""));
    }
    for member in members.iter().filter(|member| !text(member).is_empty()) {
        let cased = member.ends_with("ind");
        let name = if cased { text(member).to_lowercase() } else { text(member).to_owned() };
        let wrong = names::dns1035_label(&name);
        if !wrong.is_empty() {
            let lead = if cased { "may have mixed case, but should otherwise match: " } else { "" };
            let detail = format!("{lead}{}", wrong.join(","));
            errors.push(FieldError::invalid(&path.child(member), text(member), detail));
        }
    }
    let labels = |member: &str, errors: &mut ErrorList| {
        for (index, name) in new.array(&[at[0], at[1], member]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let wrong = names::dns1035_label(name);
            if !wrong.is_empty() {
                errors.push(FieldError::invalid(&path.child(member).index(index), name, wrong.join(",")));
            }
        }
    };
    labels("shortNames", errors);
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        let path = path.child("listKind");
        errors.push(FieldError::invalid(&path, text("listKind"), "kind and listKind may not be the same"));
    }
    labels("categories", errors);
}

fn check_immutable(new: &Object, old: &Object, established: bool, errors: &mut ErrorList) {
    let always: [&[&str]; 2] = [&["group"], &["names", "plural"]];
    let once: [&[&str]; 2] = [&["scope"], &["names", "kind"]];
    for path in once.into_iter().filter(|_| established).chain(always) {
        let whole: Vec<&str> = ["spec"].iter().chain(path).copied().collect();
        let value = new.get(&whole);
        if value != old.get(&whole) {
            let path = Path::new("spec").children(path);
            errors.push(FieldError::invalid(&path, value.cloned().unwrap_or_default(), super::IMMUTABLE));
        }
    }
}

fn check_stored_versions(new: &Object, errors: &mut ErrorList) {
    let path = Path::new("status").child("storedVersions");
    let stored = new.array(&["status", "storedVersions"]);
    if stored.is_empty() {
        errors.push(FieldError::invalid(&path, Value::Array(Vec::new()), "must have at least one stored version"));
        return;
    }
    let versions = new.array(&["spec", "versions"]);
    for version in versions.iter().filter(|version| version.get("storage").and_then(Value::as_bool) == Some(true)) {
        let name = version.get("name").and_then(Value::as_str).unwrap_or_default();
        if !stored.iter().any(|stored| stored == name) {
            let detail = format!("must have the storage version {name}");
            errors.push(FieldError::invalid(&path, stored.to_vec(), detail));
        }
    }
    for (index, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version.get("name") == Some(name)) {
            let text = name.as_str().unwrap_or_default();
            let detail = format!(
                "missing from spec.versions; {text} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {text} and removes {text} from status.storedVersions"
            );
            errors.push(FieldError::invalid(&path.index(index), name.clone(), detail));
        }
    }
}

/// What a definition says of its approval: the status and reason of its condition, and a text.
pub struct Approval {
    /// `True` for an approved one.
    pub status: &'static str,
    /// Reason of the condition.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The approval of a definition in a group of Kubernetes' own; `None` for all other groups.
pub fn approval(definition: &Object) -> Option<Approval> {
    const MORE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let group = definition.str(&["spec", "group"]).unwrap_or_default();
    let own = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    if !own {
        return None;
    }
    let text = definition.annotation(APPROVED).unwrap_or_default();
    let is_url = text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.starts_with('/'));
    let (status, reason, message) = if text.is_empty() {
        ("False", "MissingAnnotation", format!("protected groups must have approval annotation {APPROVED:?}, {MORE}"))
    } else if text.starts_with("unapproved") {
        ("False", "UnapprovedAnnotation", format!("not approved: {}", crate::field::quote(text)))
    } else if is_url && formats_as_uri(text) {
        ("True", "ApprovedAnnotation", format!("approved in {text}"))
    } else {
        let message = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {MORE}"
        );
        ("False", "InvalidAnnotation", message)
    };
    Some(Approval { status, reason, message })
}

fn formats_as_uri(text: &str) -> bool {
    super::formats::fits("uri", text)
}

fn check_approval(new: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    let Some(found) = approval(new) else { return };
    if old.and_then(approval).is_some_and(|old| old.reason == found.reason) {
        return;
    }
    let path = Path::new("metadata").child("annotations").key(APPROVED);
    match found.reason {
        "MissingAnnotation" => errors.push(FieldError::required(&path, found.message)),
        "InvalidAnnotation" => {
            let text = new.annotation(APPROVED).unwrap_or_default();
            errors.push(FieldError::invalid(&path, text, found.message));
        }
        _ => {}
    }
}

/// Formats of strings in the schemas of a definition that nothing checks.
pub fn unknown_formats(definition: &Object) -> Vec<String> {
    definition.array(&["spec", "versions"]).iter().filter_map(schema_of).flat_map(schema::unknown_formats).collect()
}

/// The schemas of a definition with the places that errors name them by: once beside the versions where all have the same.
pub fn schemas(definition: &Object) -> Vec<(Path, &Value)> {
    let versions = definition.array(&["spec", "versions"]);
    let found = versions.iter().enumerate().filter_map(|(index, version)| Some((index, schema_of(version)?)));
    let found: Vec<(usize, &Value)> = found.collect();
    match found.as_slice() {
        [(_, first), rest @ ..] if found.len() == versions.len() && rest.iter().all(|(_, other)| other == first) => {
            vec![(Path::new("spec").children(&["validation", "openAPIV3Schema"]), *first)]
        }
        _ => {
            let place =
                |index| Path::new("spec").child("versions").index(index).children(&["schema", "openAPIV3Schema"]);
            found.into_iter().map(|(index, schema)| (place(index), schema)).collect()
        }
    }
}

/// The schema of a version, if it has one.
fn schema_of(version: &Value) -> Option<&Value> {
    version.pointer("/schema/openAPIV3Schema").filter(|schema| schema.is_object())
}

/// Status of a condition of a definition.
fn condition<'a>(definition: &'a Object, kind: &str) -> Option<&'a str> {
    let conditions = definition.array(&["status", "conditions"]).iter();
    let mut found = conditions.filter(|condition| condition.get("type").and_then(Value::as_str) == Some(kind));
    found.next()?.get("status")?.as_str()
}

#[cfg(test)]
mod tests;
