//! ComponentStatuses: the state of the control plane's parts, asked for at each read.

use async_trait::async_trait;
use kminik_meta::{Gvk, Object, StatusError};
use serde_json::json;

use crate::registry::action::{ActionContext, Source};
use crate::storage::key;

pub(crate) struct ComponentStatuses;

#[async_trait]
impl Source for ComponentStatuses {
    async fn objects(&self, ctx: ActionContext<'_>) -> Result<Vec<Object>, StatusError> {
        let store = match ctx.registry().store().get(&key::object("health", "", "none")).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        let mut parts = vec![("etcd-0", store)];
        for (name, ready) in (ctx.server.config().components)() {
            parts.push((name, if ready { Ok(()) } else { Err("not ready".to_owned()) }));
        }
        parts.sort_by_key(|(name, _)| *name);
        Ok(parts
            .into_iter()
            .map(|(name, state)| {
                let mut status = Object::new(&Gvk::new("", "v1", "ComponentStatus"));
                status.set_name(name);
                let condition = match state {
                    Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
                    Err(why) => json!({"type": "Healthy", "status": "False", "message": why}),
                };
                status.set(&["conditions"], json!([condition]));
                status
            })
            .collect())
    }
}
