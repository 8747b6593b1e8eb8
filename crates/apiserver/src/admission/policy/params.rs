//! The parameters of a policy under a binding: objects of any kind that is served, custom ones included.

use std::sync::Arc;

use kminik_meta::{GroupVersion, LabelSelector, Object};

use super::super::Attributes;
use super::compiled::{Binding, Common};
use crate::registry::storage_prefix;
use crate::storage::entry::Entry;
use crate::storage::key;

/// The parameters to evaluate with, one evaluation each; a policy without parameters is evaluated once, with `None`.
///
/// # Errors
/// Why the binding cannot be used, in upstream's words.
pub(super) async fn collect(
    policy: &Common,
    binding: &Binding,
    attributes: &Attributes<'_>,
) -> Result<Vec<Option<Arc<Object>>>, String> {
    let (Some(kind), Some(reference)) = (&policy.param_kind, &binding.params) else { return Ok(vec![None]) };
    let unknown = || format!("paramKind kind `{}, Kind={}` not known", kind.api_version, kind.kind);
    let table = attributes.registry.table();
    let version = GroupVersion::parse(&kind.api_version).ok_or_else(unknown)?;
    let row = table.by_kind(&version.group, &kind.kind).ok_or_else(unknown)?;
    let served = row.version(&version.version).ok_or_else(unknown)?;
    let (row, prefix) = (row.in_version(&served.name), storage_prefix(row).map_err(|_| unknown())?);
    let namespace = match (row.namespaced(), reference.namespace.as_str()) {
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
        (true, "") if attributes.namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, "") => attributes.namespace,
        (true, own) => own,
    };
    let snapshot = attributes.registry.cache().snapshot(prefix);
    let found: Vec<Arc<Entry>> = match (reference.name.as_str(), &reference.selector) {
        ("", None) => return Err("one of name or selector must be provided".into()),
        ("", Some(selector)) => {
            let selector = LabelSelector::from_value(Some(selector)).map_err(|error| error.to_string())?;
            let all = snapshot.range(&key::namespace(prefix, namespace), None);
            all.filter(|entry| selector.matches_by(|label| entry.labels().get(label).map(String::as_str)))
                .cloned()
                .collect()
        }
        (_, Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".into()),
        (name, None) => snapshot.get(&key::object(prefix, namespace, name)).into_iter().cloned().collect(),
    };
    if found.is_empty() && reference.deny_missing {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    let shown = row.shown_all(found).await.map_err(|error| error.to_string())?;
    let seen = |entry: Arc<Entry>| {
        let object = entry.object().map_err(|error| error.to_string())?;
        if object.api_version() == kind.api_version {
            return Ok(Some(object));
        }
        let mut object = (*object).clone();
        row.from_stored(served, &mut object);
        Ok(Some(Arc::new(object)))
    };
    shown.into_iter().map(seen).collect()
}
