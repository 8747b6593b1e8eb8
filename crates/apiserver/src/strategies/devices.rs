//! Claims of devices: the right to use devices of others needs a namespace that is marked for it.

use kminik_meta::{ErrorList, FieldError, Object, Path};
use serde_json::Value;

use crate::registry::strategy::{Strategy, StrategyContext, keep_all_but_status, keep_metadata};

/// A namespace with this label, `true`, may claim devices with administrator's access.
const ADMIN_ACCESS: &str = "resource.kubernetes.io/admin-access";

/// Claims.
pub(crate) struct Claims;

impl Strategy for Claims {
    fn validate(&self, ctx: &StrategyContext<'_>, claim: &Object) -> ErrorList {
        admin_access(ctx, claim, &["spec"])
    }
}

/// Templates of claims.
pub(crate) struct ClaimTemplates;

impl Strategy for ClaimTemplates {
    fn validate(&self, ctx: &StrategyContext<'_>, template: &Object) -> ErrorList {
        admin_access(ctx, template, &["spec", "spec"])
    }
}

/// `resourceclaims/status`.
pub(crate) struct ClaimStatus;

impl Strategy for ClaimStatus {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        keep_all_but_status(old, new);
        keep_metadata(ctx.row, "status", old, new);
        // What is no longer allocated has no state to tell.
        let allocated = new.array(&["status", "allocation", "devices", "results"]).to_vec();
        let id = |device: &Value| ["driver", "pool", "device", "shareID"].map(|member| device.get(member).cloned());
        if let Some(devices) = new.get_mut(&["status", "devices"]).and_then(Value::as_array_mut)
            && old.get(&["status", "allocation"]).is_some()
        {
            devices.retain(|device| allocated.iter().any(|result| id(result) == id(device)));
        }
        if new.array(&["status", "devices"]).is_empty() {
            new.remove(&["status", "devices"]);
        }
    }
}

fn admin_access(ctx: &StrategyContext<'_>, object: &Object, spec: &[&str]) -> ErrorList {
    let requests = Path::default().children(spec).child("devices").child("requests");
    let path: Vec<&str> = spec.iter().copied().chain(["devices", "requests"]).collect();
    let asks = |request: &Value| request["exactly"]["adminAccess"] == true;
    let mut errors = ErrorList::new();
    let asking = object.array(&path).iter().enumerate().filter(|(_, request)| asks(request));
    let mut asking = asking.map(|(index, _)| requests.index(index).child("exactly").child("adminAccess")).peekable();
    if asking.peek().is_none() {
        return errors;
    }
    let namespace = ctx.registry.cached_object("", "namespaces", "", ctx.namespace);
    if namespace.is_some_and(|namespace| namespace.label(ADMIN_ACCESS) == Some("true")) {
        return errors;
    }
    let detail =
        format!("admin access to devices requires the `{ADMIN_ACCESS}: true` label on the containing namespace");
    errors.extend(asking.map(|path| FieldError::forbidden(&path, detail.clone())));
    errors
}
