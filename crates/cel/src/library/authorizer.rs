//! Asking whether somebody may do something.

use std::fmt;
use std::sync::Arc;

use kminik_meta::names;

use super::opaque::Opaque;
use super::{Outcome, text};
use crate::CallContext;
use crate::env::Row;
use crate::error::EvalError;
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    (
        "path",
        "authorizer_path",
        "kubernetes.authorization.Authorizer.(string) kubernetes.authorization.PathCheck",
        |_, args| {
            let path = filled(text(args, 1)?, "path")?;
            Ok(Value::Opaque(Opaque::PathCheck(authorizer(args)?, path)))
        },
    ),
    (
        "group",
        "authorizer_group",
        "kubernetes.authorization.Authorizer.(string) kubernetes.authorization.GroupCheck",
        |_, args| Ok(Value::Opaque(Opaque::GroupCheck(authorizer(args)?, text(args, 1)?.into()))),
    ),
    (
        "serviceAccount",
        "authorizer_serviceaccount",
        "kubernetes.authorization.Authorizer.(string, string) kubernetes.authorization.Authorizer",
        service_account,
    ),
    (
        "resource",
        "groupcheck_resource",
        "kubernetes.authorization.GroupCheck.(string) kubernetes.authorization.ResourceCheck",
        |_, args| {
            let resource = filled(text(args, 1)?, "resource")?;
            let Some(Value::Opaque(Opaque::GroupCheck(who, group))) = args.first() else {
                return Err(EvalError::no_such_overload());
            };
            let check =
                ResourceCheck { group: group.to_string(), resource: resource.to_string(), ..ResourceCheck::default() };
            Ok(Value::Opaque(Opaque::ResourceCheck(who.clone(), Arc::new(check))))
        },
    ),
    (
        "subresource",
        "resourcecheck_subresource",
        "kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck",
        |_, args| refine(args, |check| &mut check.subresource),
    ),
    (
        "namespace",
        "resourcecheck_namespace",
        "kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck",
        |_, args| refine(args, |check| &mut check.namespace),
    ),
    (
        "name",
        "resourcecheck_name",
        "kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck",
        |_, args| refine(args, |check| &mut check.name),
    ),
    (
        "fieldSelector",
        "authorizer_fieldselector",
        "kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck",
        |_, args| refine(args, |check| &mut check.field_selector),
    ),
    (
        "labelSelector",
        "authorizer_labelselector",
        "kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck",
        |_, args| refine(args, |check| &mut check.label_selector),
    ),
    (
        "check",
        "pathcheck_check",
        "kubernetes.authorization.PathCheck.(string) kubernetes.authorization.Decision",
        |_, args| match args {
            [Value::Opaque(Opaque::PathCheck(who, path)), Value::String(verb)] => {
                Ok(decided(who.authorizer.path(&who.subject, verb.as_str(), path)))
            }
            _ => Err(EvalError::no_such_overload()),
        },
    ),
    (
        "check",
        "resourcecheck_check",
        "kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.Decision",
        |_, args| match args {
            [Value::Opaque(Opaque::ResourceCheck(who, check)), Value::String(verb)] => {
                Ok(decided(who.authorizer.resource(&who.subject, verb.as_str(), check)))
            }
            _ => Err(EvalError::no_such_overload()),
        },
    ),
    ("allowed", "decision_allowed", "kubernetes.authorization.Decision.() bool", |_, args| {
        Ok(decision(args)?.allowed.into())
    }),
    ("reason", "decision_reason", "kubernetes.authorization.Decision.() string", |_, args| {
        Ok(Value::text(&*decision(args)?.reason))
    }),
    ("errored", "decision_errored", "kubernetes.authorization.Decision.() bool", |_, args| {
        Ok(decision(args)?.error.is_some().into())
    }),
    ("error", "decision_error", "kubernetes.authorization.Decision.() string", |_, args| {
        Ok(Value::text(decision(args)?.error.clone().unwrap_or_default()))
    }),
];

/// Who is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Whoever makes the request.
    Requester,
    /// A service account.
    ServiceAccount { namespace: String, name: String },
}

/// What is asked about a resource; what is empty is not narrowed down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceCheck {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// Why there was no proper answer.
    pub error: Option<String>,
}

/// The host's authorizer.
pub trait Authorizer: Send + Sync {
    /// Whether the subject may do `verb` to a path.
    fn path(&self, subject: &Subject, verb: &str, path: &str) -> Decision;

    /// Whether the subject may do `verb` to a resource.
    fn resource(&self, subject: &Subject, verb: &str, check: &ResourceCheck) -> Decision;
}

/// An authorizer and who it is asked about.
#[derive(Clone)]
pub struct AuthorizerValue {
    authorizer: Arc<dyn Authorizer>,
    subject: Subject,
}

impl fmt::Debug for AuthorizerValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizerValue").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Value<'_> {
    /// The variable `authorizer`, which speaks of the requester.
    pub fn authorizer(authorizer: Arc<dyn Authorizer>) -> Self {
        Value::Opaque(Opaque::Authorizer(AuthorizerValue { authorizer, subject: Subject::Requester }))
    }

    /// The variable `authorizer.requestResource`.
    pub fn resource_check(authorizer: Arc<dyn Authorizer>, check: ResourceCheck) -> Self {
        Value::Opaque(Opaque::ResourceCheck(
            AuthorizerValue { authorizer, subject: Subject::Requester },
            Arc::new(check),
        ))
    }
}

fn authorizer(args: &[Value<'_>]) -> Result<AuthorizerValue, EvalError> {
    match args.first() {
        Some(Value::Opaque(Opaque::Authorizer(who))) => Ok(who.clone()),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn filled(value: &str, what: &str) -> Result<Arc<str>, EvalError> {
    if value.trim().is_empty() {
        return Err(EvalError::new(format_args!("{what} must not be empty")));
    }
    Ok(value.into())
}

fn service_account<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let (namespace, name) = (text(args, 1)?, text(args, 2)?);
    if !names::dns1123_subdomain(name).is_empty() {
        return Err(EvalError::new("Invalid service account name"));
    }
    if !names::dns1123_label(namespace).is_empty() {
        return Err(EvalError::new("Invalid service account namespace"));
    }
    let subject = Subject::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() };
    Ok(Value::Opaque(Opaque::Authorizer(AuthorizerValue { subject, ..authorizer(args)? })))
}

fn refine<'a>(args: &[Value<'a>], part: fn(&mut ResourceCheck) -> &mut String) -> Outcome<'a> {
    let value = text(args, 1)?;
    let Some(Value::Opaque(Opaque::ResourceCheck(who, check))) = args.first() else {
        return Err(EvalError::no_such_overload());
    };
    let mut check = (**check).clone();
    value.clone_into(part(&mut check));
    Ok(Value::Opaque(Opaque::ResourceCheck(who.clone(), Arc::new(check))))
}

fn decided<'a>(decision: Decision) -> Value<'a> {
    Value::Opaque(Opaque::Decision(Arc::new(decision)))
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Decision, EvalError> {
    match args.first() {
        Some(Value::Opaque(Opaque::Decision(decision))) => Ok(decision),
        _ => Err(EvalError::no_such_overload()),
    }
}
