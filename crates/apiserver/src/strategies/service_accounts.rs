//! Service accounts name their Secrets, and nothing else of them.

use kminik_meta::Object;
use serde_json::Value;

use crate::registry::strategy::{Strategy, StrategyContext, default_prepare_create, default_prepare_update};

pub(crate) struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    fn prepare_create(&self, ctx: &StrategyContext<'_>, account: &mut Object) {
        default_prepare_create(ctx, account);
        only_names(account);
    }

    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        default_prepare_update(ctx, old, new);
        only_names(new);
    }
}

fn only_names(account: &mut Object) {
    let secrets = account.get_mut(&["secrets"]).and_then(Value::as_array_mut);
    for secret in secrets.into_iter().flatten().filter_map(Value::as_object_mut) {
        secret.retain(|member, _| member == "name");
    }
}
