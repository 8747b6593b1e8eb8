//! API services: a group that this server serves itself is available from the beginning.

use kminik_meta::{Object, time};
use serde_json::json;

use crate::registry::strategy::{Strategy, StrategyContext, default_prepare_create};

pub(crate) struct ApiServices;

impl Strategy for ApiServices {
    fn prepare_create(&self, ctx: &StrategyContext<'_>, service: &mut Object) {
        default_prepare_create(ctx, service);
        if service.get(&["spec", "service"]).is_none() {
            let condition = json!({
                "type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available", "lastTransitionTime": time::format(ctx.now),
            });
            service.set(&["status", "conditions"], json!([condition]));
        }
    }
}
