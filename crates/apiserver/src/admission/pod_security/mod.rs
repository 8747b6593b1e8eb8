//! PodSecurity: the labels of a namespace say how privileged its pods may be.
//!
//! `pod-security.kubernetes.io/enforce` refuses pods, `warn` warns whoever writes pods or what makes them; each with a
//! version of the standard; `audit` has what would violate it written into the audit log. Nobody is exempt.

mod checks;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use kminik_meta::{ErrorList, Object, StatusError};
use serde_json::Value;

use self::checks::Subject;
use self::policy::{LevelVersion, PREFIX, Policy};
use super::{Admission, Attributes, Operation};

/// Pods of a namespace that a stricter level is tried on, as upstream's limit.
const MAX_PODS_TO_CHECK: usize = 3000;
/// Subresources of pods that do not change what the pod may do.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
/// What has a pod template, and where.
static TEMPLATES: [(&str, &str, &[&str]); 8] = [
    ("", "replicationcontrollers", &["spec", "template"]),
    ("", "podtemplates", &["template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];

pub(super) struct PodSecurity;

/// What a request is about, as far as this plugin cares.
enum About {
    Namespace,
    Pod,
    /// Something that makes pods by the template at this path.
    Template(&'static [&'static str]),
}

fn about(attributes: &Attributes<'_>) -> Option<About> {
    let (group, plural): (&str, &str) = (attributes.row.group.as_ref(), attributes.row.plural.as_ref());
    if group.is_empty() && plural == "pods" {
        return (!IGNORED.contains(&attributes.subresource)).then_some(About::Pod);
    }
    if !attributes.subresource.is_empty() {
        return None;
    }
    if attributes.is_namespace() {
        return Some(About::Namespace);
    }
    let row = TEMPLATES.iter().find(|(of, name, _)| *of == group && *name == plural)?;
    Some(About::Template(row.2))
}

#[async_trait]
impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update) && about(attributes).is_some()
    }

    fn may_mutate(&self) -> bool {
        false
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        let (Some(about), Some(object)) = (about(attributes), object) else { return Ok(()) };
        match about {
            About::Namespace => validate_namespace(attributes, object).await,
            About::Pod => {
                let (policy, errors) = Policy::of(&*attributes.namespace_object().await?);
                if policy.is_privileged() && errors.is_empty() {
                    annotate(attributes, "enforce-policy", || LevelVersion::PRIVILEGED.to_string());
                    return Ok(());
                }
                if !attributes.old.is_none_or(|old| is_significant(object, old)) {
                    return Ok(());
                }
                let Some(subject) = Subject::of_pod(object) else { return Ok(()) };
                evaluate(attributes, &policy, &errors, &subject, true)
            }
            About::Template(path) => {
                let (policy, errors) = Policy::of(&*attributes.namespace_object().await?);
                if policy.warn.is_privileged() && policy.audit.is_privileged() && errors.is_empty() {
                    return Ok(());
                }
                let Some(subject) = object.get(path).and_then(Subject::of_template) else { return Ok(()) };
                evaluate(attributes, &policy, &errors, &subject, false)
            }
        }
    }
}

/// Adds one of the plugin's annotations to the audit log.
fn annotate(attributes: &Attributes<'_>, key: &str, value: impl FnOnce() -> String) {
    attributes.audit.annotate(&format!("{PREFIX}{key}"), value);
}

/// Holds pods to a policy; `errors` are those of the labels that it was read from.
fn evaluate(
    attributes: &Attributes<'_>,
    policy: &Policy,
    errors: &ErrorList,
    subject: &Subject<'_>,
    enforce: bool,
) -> Result<(), StatusError> {
    if !errors.is_empty() {
        annotate(attributes, "error", || format!("Failed to parse policy: {errors}"));
    }
    if attributes.audit.is_on() {
        let violations = checks::violations(policy.audit, subject);
        if !violations.is_empty() {
            let what = checks::details(&violations);
            let would = || format!("would violate PodSecurity \"{}\": {what}", policy.audit);
            annotate(attributes, "audit-violations", would);
        }
    }
    if enforce {
        annotate(attributes, "enforce-policy", || policy.enforce.to_string());
        let violations = checks::violations(policy.enforce, subject);
        if !violations.is_empty() {
            let what = checks::details(&violations);
            return Err(attributes.forbidden(format!("violates PodSecurity \"{}\": {what}", policy.enforce)));
        }
    }
    let violations = checks::violations(policy.warn, subject);
    if !violations.is_empty() {
        let what = checks::details(&violations);
        attributes.warn(format!("would violate PodSecurity \"{}\": {what}", policy.warn));
    }
    Ok(())
}

/// Labels must be readable, unless they were not before; a stricter level warns of the pods that it will not let in.
async fn validate_namespace(attributes: &Attributes<'_>, namespace: &Object) -> Result<(), StatusError> {
    let (policy, errors) = Policy::of(namespace);
    let old = attributes.old.map(Policy::of);
    let known = old.as_ref().is_some_and(|(_, old)| *old == errors);
    if !errors.is_empty() && !known {
        return Err(StatusError::invalid("", "Namespace", namespace.name(), &errors));
    }
    let Some((old, _)) = old else { return Ok(()) };
    let (new, old) = (policy.enforce, old.enforce);
    if new == old || new.is_privileged() || (new.version == old.version && new.level <= old.level) {
        return Ok(());
    }
    let pods = attributes.registry.fresh_in("", "pods", namespace.name()).await?;
    for warning in warnings_of_pods(pods, namespace.name(), new) {
        attributes.warn(warning);
    }
    Ok(())
}

fn warnings_of_pods(pods: Vec<Arc<Object>>, namespace: &str, enforce: LevelVersion) -> Vec<String> {
    // One of each controller's pods first, then the others.
    let (mut first, mut others, mut controllers) = (Vec::new(), Vec::new(), BTreeSet::new());
    for pod in pods {
        match pod.controller_of() {
            Some(owner) if !controllers.insert(owner.uid.clone()) => others.push(pod),
            _ => first.push(pod),
        }
    }
    first.append(&mut others);
    let total = first.len();
    first.truncate(MAX_PODS_TO_CHECK);
    // By what is wrong: the first pod by name, and how many.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in &first {
        let violations = Subject::of_pod(pod).map(|subject| checks::violations(enforce, &subject)).unwrap_or_default();
        if violations.is_empty() {
            continue;
        }
        let (name, count) = found.entry(checks::reasons(&violations)).or_insert_with(|| (pod.name().to_owned(), 0));
        *count += 1;
        if pod.name() < name.as_str() {
            pod.name().clone_into(name);
        }
    }
    let mut warnings = Vec::new();
    if first.len() < total {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {} of {total} existing pods",
            first.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    let mut of_pods: Vec<String> = found
        .into_iter()
        .map(|(what, (name, count))| match count {
            1 => format!("{name}: {what}"),
            2 => format!("{name} (and 1 other pod): {what}"),
            more => format!("{name} (and {} other pods): {what}", more - 1),
        })
        .collect();
    of_pods.sort();
    warnings.append(&mut of_pods);
    warnings
}

/// Whether an update changes what runs in the pod: which containers there are, and of which images.
fn is_significant(new: &Object, old: &Object) -> bool {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let images = |pod: &Object, list: &str| -> Vec<String> {
        pod.array(&["spec", list]).iter().map(|container| text(container, "image")).collect()
    };
    if ["containers", "initContainers"].iter().any(|list| images(new, list) != images(old, list)) {
        return true;
    }
    let before = old.array(&["spec", "ephemeralContainers"]);
    new.array(&["spec", "ephemeralContainers"]).iter().any(|container| {
        let same = |other: &&Value| text(other, "name") == text(container, "name");
        before.iter().find(same).is_none_or(|other| text(other, "image") != text(container, "image"))
    })
}
