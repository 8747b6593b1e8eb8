//! The parameters of a policy under a binding: objects of any kind that is served, custom ones included.

use std::sync::Arc;

use kminik_meta::{GroupVersion, LabelSelector, Object};

use super::super::Attributes;
use super::compiled::{Binding, Policy};

/// The parameters to evaluate with, one evaluation each; a policy without parameters is evaluated once, with `None`.
///
/// # Errors
/// Why the binding cannot be used, in upstream's words.
pub(super) fn collect(
    policy: &Policy,
    binding: &Binding,
    attributes: &Attributes<'_>,
) -> Result<Vec<Option<Arc<Object>>>, String> {
    let (Some(kind), Some(reference)) = (&policy.param_kind, &binding.params) else { return Ok(vec![None]) };
    let unknown = || format!("paramKind kind `{}, Kind={}` not known", kind.api_version, kind.kind);
    let table = attributes.registry.table();
    let version = GroupVersion::parse(&kind.api_version).ok_or_else(unknown)?;
    let row = table.by_kind(&version.group, &kind.kind).ok_or_else(unknown)?;
    let served = row.version(&version.version).filter(|v| v.served).ok_or_else(unknown)?;
    let namespace = match (row.namespaced(), reference.namespace.as_str()) {
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
        (true, "") if attributes.namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, "") => attributes.namespace,
        (true, own) => own,
    };
    let found: Vec<Arc<Object>> = match (reference.name.as_str(), &reference.selector) {
        ("", None) => return Err("one of name or selector must be provided".into()),
        ("", Some(selector)) => {
            let selector = LabelSelector::from_value(Some(selector)).map_err(|error| error.to_string())?;
            let all = attributes.registry.cached_in(&row.group, &row.plural, namespace);
            all.into_iter().filter(|object| selector.matches(object)).collect()
        }
        (_, Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".into()),
        (name, None) => {
            attributes.registry.cached_object(&row.group, &row.plural, namespace, name).into_iter().collect()
        }
    };
    if found.is_empty() && reference.deny_missing {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    let seen = |object: Arc<Object>| {
        if object.api_version() == kind.api_version {
            return Some(object);
        }
        let mut object = (*object).clone();
        row.from_stored(served, &mut object);
        Some(Arc::new(object))
    };
    Ok(found.into_iter().map(seen).collect())
}
