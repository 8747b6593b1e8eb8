//! The review kinds: questions about identities and rights, answered and not stored.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kminik_meta::{ErrorList, FieldError, Object, Path, StatusError};
use serde_json::{Map, Value, json};

use super::bearer::Accepted;
use super::{Attributes, Decision, RuleSummary, UserInfo};
use crate::registry::action::{ActionContext, Create};

const AUTHORIZATION: &str = "authorization.k8s.io";

/// Whose rights an access review asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// SubjectAccessReview: the user in the spec.
    Subject,
    /// LocalSubjectAccessReview: the user in the spec, in the request's namespace.
    Local,
    /// SelfSubjectAccessReview: whoever asks.
    Own,
}

#[async_trait]
impl Create for Access {
    async fn create(&self, ctx: ActionContext<'_>, mut review: Object) -> Result<Object, StatusError> {
        let attributes = self.attributes(&ctx, &review)?;
        let decision = ctx.server.authorizer().authorize(&attributes).await;
        let mut status = json!({ "allowed": decision.allowed() });
        if matches!(decision, Decision::Deny { .. }) {
            status["denied"] = true.into();
        }
        if !decision.reason().is_empty() {
            status["reason"] = decision.reason().into();
        }
        review.set(&["status"], status);
        Ok(review)
    }
}

impl Access {
    fn attributes(self, ctx: &ActionContext<'_>, review: &Object) -> Result<Attributes, StatusError> {
        let empty = Object::default();
        let spec = review.get(&["spec"]).cloned().and_then(|spec| Object::try_from(spec).ok()).unwrap_or(empty);
        let mut errors = ErrorList::new();
        let root = Path::new("spec");
        let user = match self {
            Access::Own => ctx.user.clone(),
            Access::Subject | Access::Local => user_in(&spec, "user"),
        };
        let nobody = user.name.is_empty() && user.groups.is_empty();
        let of_resource = spec.get(&["resourceAttributes"]).filter(|value| value.is_object());
        let of_path = spec.get(&["nonResourceAttributes"]).filter(|value| value.is_object());
        let mut attributes = Attributes { user, ..Attributes::default() };
        let text = |key: &str| of_path.and_then(|path| path.get(key)?.as_str()).unwrap_or_default().to_owned();
        // As upstream's own form of it has it.
        let path_shown = json!({ "Path": text("path"), "Verb": text("verb") });
        match (of_resource, of_path) {
            (Some(resource), None) => fill(&mut attributes, resource),
            (None, Some(_)) => (attributes.verb, attributes.path) = (text("verb"), text("path")),
            (Some(resource), Some(_)) => {
                fill(&mut attributes, resource);
                let detail = "cannot be specified in combination with resourceAttributes";
                errors.push(FieldError::invalid(&root.child("nonResourceAttributes"), path_shown.clone(), detail));
            }
            (None, None) => {
                let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
                errors.push(FieldError::invalid(&root.child("resourceAttributes"), "null", detail));
            }
        }
        if nobody {
            let detail = "at least one of user or group must be specified";
            errors.push(FieldError::invalid(&root.child("user"), "", detail));
        }
        if let Some(resource) = of_resource {
            errors.append(check_selectors(resource, &root.child("resourceAttributes")));
        }
        self.check_metadata(review, &mut errors);
        if self == Access::Local && of_resource.is_some() && attributes.namespace != ctx.namespace {
            let detail = "must match metadata.namespace";
            let path = root.children(&["resourceAttributes", "namespace"]);
            errors.push(FieldError::invalid(&path, attributes.namespace.clone(), detail));
        }
        if self == Access::Local && of_path.is_some() {
            let detail = "disallowed on this kind of request";
            errors.push(FieldError::invalid(&root.child("nonResourceAttributes"), path_shown, detail));
        }
        match errors.is_empty() {
            true => Ok(attributes),
            false => Err(StatusError::invalid(AUTHORIZATION, review.kind(), "", &errors)),
        }
    }

    /// A question has no name, nor anything else of what is stored.
    fn check_metadata(self, review: &Object, errors: &mut ErrorList) {
        let said = |value: &Value| !(value.is_null() || value.as_object().is_some_and(Map::is_empty));
        let metadata = review.get(&["metadata"]).and_then(Value::as_object);
        let said: Map<String, Value> = metadata
            .into_iter()
            .flatten()
            .filter(|(member, value)| member.as_str() != "managedFields" && said(value))
            .map(|(member, value)| (member.clone(), value.clone()))
            .collect();
        let local = self == Access::Local;
        if said.keys().any(|member| !(local && member == "namespace")) {
            let detail = if local { "must be empty except for namespace" } else { "must be empty" };
            errors.push(FieldError::invalid(&Path::new("metadata"), said, detail));
        }
    }
}

fn fill(attributes: &mut Attributes, resource: &Value) {
    let text = |key: &str| resource.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    attributes.resource_request = true;
    attributes.verb = text("verb");
    attributes.group = text("group");
    attributes.version = text("version");
    attributes.resource = text("resource");
    attributes.subresource = text("subresource");
    attributes.namespace = text("namespace");
    attributes.name = text("name");
    attributes.field_selector = selector(resource, "fieldSelector");
    attributes.label_selector = selector(resource, "labelSelector");
}

/// The selector that a review asks about, as a request would carry it. What cannot be written so restricts nothing.
fn selector(resource: &Value, which: &str) -> String {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(selector) = resource.get(which) else { return String::new() };
    let raw = text(selector, "rawSelector");
    if !raw.is_empty() {
        return raw;
    }
    let term = |requirement: &Value| {
        let key = text(requirement, "key");
        let values: Vec<&str> = requirement
            .get("values")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        match (text(requirement, "operator").as_str(), values.as_slice()) {
            ("In", [only]) if which == "fieldSelector" => Some(format!("{key}={}", kminik_meta::fields::escape(only))),
            ("NotIn", [only]) if which == "fieldSelector" => {
                Some(format!("{key}!={}", kminik_meta::fields::escape(only)))
            }
            _ if which == "fieldSelector" => None,
            ("In", values) => Some(format!("{key} in ({})", values.join(","))),
            ("NotIn", values) => Some(format!("{key} notin ({})", values.join(","))),
            ("Exists", _) => Some(key),
            ("DoesNotExist", _) => Some(format!("!{key}")),
            _ => None,
        }
    };
    requirements(selector).iter().filter_map(term).collect::<Vec<_>>().join(",")
}

fn requirements(selector: &Value) -> &[Value] {
    selector.get("requirements").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// What is wrong with the selectors of a review.
fn check_selectors(resource: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for which in ["fieldSelector", "labelSelector"] {
        let Some(selector) = resource.get(which).filter(|selector| selector.is_object()) else { continue };
        let path = path.child(which);
        let raw = selector.get("rawSelector").and_then(Value::as_str).unwrap_or_default();
        let requirements = requirements(selector);
        match (raw.is_empty(), requirements.is_empty()) {
            (false, false) => {
                let detail = "may not specified at the same time as requirements";
                errors.push(FieldError::invalid(&path.child("rawSelector"), raw, detail));
            }
            (true, true) => {
                let detail = format!("when {which} is specified, requirements or rawSelector is required");
                errors.push(FieldError::required(&path.child("requirements"), detail));
            }
            _ => {}
        }
        for (at, requirement) in requirements.iter().enumerate() {
            let path = path.child("requirements").index(at);
            let text = |key: &str| requirement.get(key).and_then(Value::as_str).unwrap_or_default();
            let values = requirement.get("values").and_then(Value::as_array).map_or(0, Vec::len);
            if text("key").is_empty() {
                errors.push(FieldError::required(&path.child("key"), "must be specified"));
            }
            match text("operator") {
                "In" | "NotIn" if values == 0 => {
                    let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                    errors.push(FieldError::required(&path.child("values"), detail));
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.push(FieldError::forbidden(&path.child("values"), detail));
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                other => {
                    errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator"))
                }
            }
        }
    }
    errors
}

fn user_in(object: &Object, name: &str) -> UserInfo {
    let text = |key: &str| object.str(&[key]).unwrap_or_default().to_owned();
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra = object.get(&["extra"]).and_then(Value::as_object);
    UserInfo {
        name: text(name),
        uid: text("uid"),
        groups: object.get(&["groups"]).map(words).unwrap_or_default(),
        extra: extra.into_iter().flatten().map(|(key, value)| (key.to_lowercase(), words(value))).collect(),
    }
}

/// A user as reviews report it; empty parts are left out.
fn user_value(user: &UserInfo) -> Value {
    let mut value = Map::new();
    value.insert("username".into(), user.name.clone().into());
    if !user.uid.is_empty() {
        value.insert("uid".into(), user.uid.clone().into());
    }
    if !user.groups.is_empty() {
        value.insert("groups".into(), user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        let extra: BTreeMap<_, _> = user.extra.iter().collect();
        value.insert("extra".into(), json!(extra));
    }
    value.into()
}

/// SelfSubjectReview: who the requester is.
pub struct SelfReview;

#[async_trait]
impl Create for SelfReview {
    async fn create(&self, ctx: ActionContext<'_>, mut review: Object) -> Result<Object, StatusError> {
        review.set(&["status", "userInfo"], user_value(ctx.user));
        review.metadata_mut().insert("creationTimestamp".into(), kminik_meta::time::format(ctx.now).into());
        Ok(review)
    }
}

/// SelfSubjectRulesReview: all that the requester may do in a namespace.
pub struct RulesReview;

#[async_trait]
impl Create for RulesReview {
    async fn create(&self, ctx: ActionContext<'_>, mut review: Object) -> Result<Object, StatusError> {
        let namespace = review.str(&["spec", "namespace"]).unwrap_or_default().to_owned();
        if namespace.is_empty() {
            return Err(StatusError::bad_request("no namespace on request"));
        }
        let rules = ctx.server.authorizer().rules(ctx.user, &namespace).await;
        let (of_paths, of_resources): (Vec<_>, Vec<_>) =
            rules.iter().partition(|rule| !rule.non_resource_urls.is_empty());
        let value = |rule: &&RuleSummary| {
            let mut value = json!({ "verbs": rule.verbs });
            for (key, words) in [
                ("apiGroups", &rule.api_groups),
                ("resources", &rule.resources),
                ("resourceNames", &rule.resource_names),
                ("nonResourceURLs", &rule.non_resource_urls),
            ] {
                if !words.is_empty() {
                    value[key] = json!(words);
                }
            }
            value
        };
        review.set(&["status", "resourceRules"], of_resources.iter().map(value).collect::<Value>());
        review.set(&["status", "nonResourceRules"], of_paths.iter().map(value).collect::<Value>());
        // The node authorizer decides object by object and cannot list its rules.
        let incomplete = super::node::node_of(ctx.user).is_some();
        review.set(&["status", "incomplete"], incomplete);
        if incomplete {
            review.set(&["status", "evaluationError"], "node authorizer does not support user rule resolution");
        }
        Ok(review)
    }
}

/// TokenReview: whose token it is.
pub struct TokenReview;

#[async_trait]
impl Create for TokenReview {
    async fn create(&self, ctx: ActionContext<'_>, mut review: Object) -> Result<Object, StatusError> {
        let token = review.str(&["spec", "token"]).unwrap_or_default().to_owned();
        if token.is_empty() {
            return Err(StatusError::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences: Vec<String> =
            review.array(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let status = match ctx.server.auth().bearer.review(&token, &audiences, ctx.now).await {
            Ok(Accepted { user, audiences, .. }) => {
                json!({ "authenticated": true, "user": user_value(&user), "audiences": audiences })
            }
            Err(rejection) => {
                let error = format!("[invalid bearer token, {rejection}]");
                json!({ "authenticated": false, "user": {}, "error": error })
            }
        };
        review.set(&["status"], status);
        Ok(review)
    }
}
