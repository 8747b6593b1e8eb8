//! `serviceaccounts/token`: issues a token for an account, perhaps bound to a pod, secret or node.

use std::time::Duration;

use async_trait::async_trait;
use kminik_meta::{ErrorList, FieldError, Object, Path, StatusError};
use serde_json::Value;

use super::service_account::{BoundObject, NewToken};
use crate::registry::action::{Action, ActionContext, ActionKind};
use crate::registry::def::Verb;

const SHORTEST: Duration = Duration::from_secs(10 * 60);
const LONGEST: Duration = Duration::from_secs(1 << 32);
const DEFAULT: Duration = Duration::from_secs(60 * 60);
/// What admission asks for in the volumes it adds. Programs that read such a token once and keep it are given a year, as
/// upstream does by default; the token is still bound to its pod.
const INJECTED: Duration = Duration::from_secs(60 * 60 + 7);
const INJECTED_LASTS: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Answers with the TokenRequest it was given, its status filled.
pub struct TokenRequest;

#[async_trait]
impl Action for TokenRequest {
    fn kind(&self) -> ActionKind {
        ActionKind {
            group: "authentication.k8s.io",
            version: "v1",
            former: &[],
            kind: "TokenRequest",
            verb: Verb::Create,
        }
    }

    async fn run(&self, ctx: ActionContext<'_>, mut request: Object) -> Result<Object, StatusError> {
        let tokens = &ctx.server.auth().tokens;
        let account = live(&ctx, "serviceaccounts", ctx.namespace, ctx.name).await?;
        let expires_in = expiration(&request)?;
        let mut audiences: Vec<String> =
            request.array(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if audiences.is_empty() {
            audiences = tokens.audiences();
            request.set(&["spec", "audiences"], audiences.clone());
        }
        let bound = match request.get(&["spec", "boundObjectRef"]).filter(|value| value.is_object()) {
            Some(reference) => bind(&ctx, reference).await?,
            None => Vec::new(),
        };
        let expires = ctx.now + expires_in;
        let extended = expires_in == INJECTED
            && bound.iter().any(|(kind, _)| *kind == "pod")
            && audiences.iter().all(|audience| tokens.audiences().contains(audience));
        let token = tokens.issue(&NewToken {
            namespace: ctx.namespace,
            account: BoundObject { name: ctx.name.to_owned(), uid: account.uid().to_owned() },
            bound,
            audiences: &audiences,
            now: ctx.now,
            expires: if extended { ctx.now + INJECTED_LASTS } else { expires },
            warn_after: extended.then_some(expires),
        })?;
        request.set(&["spec", "expirationSeconds"], expires_in.as_secs());
        request.set(&["status", "token"], token);
        request.set(&["status", "expirationTimestamp"], kminik_meta::time::format(expires));
        request.set_name(ctx.name);
        request.set_namespace(ctx.namespace);
        request.metadata_mut().insert("creationTimestamp".into(), kminik_meta::time::format(ctx.now).into());
        Ok(request)
    }
}

fn expiration(request: &Object) -> Result<Duration, StatusError> {
    let Some(seconds) = request.i64(&["spec", "expirationSeconds"]) else { return Ok(DEFAULT) };
    let path = Path::new("spec").child("expirationSeconds");
    let error = match u64::try_from(seconds).map(Duration::from_secs) {
        Ok(wanted) if wanted > LONGEST => FieldError::too_long(&path, 1 << 32),
        Ok(wanted) if wanted >= SHORTEST => return Ok(wanted),
        _ => FieldError::invalid(&path, seconds, "may not specify a duration less than 10 minutes"),
    };
    Err(StatusError::invalid("authentication.k8s.io", "TokenRequest", "", &ErrorList::from(error)))
}

/// The object as the store has it now.
async fn live(ctx: &ActionContext<'_>, plural: &str, namespace: &str, name: &str) -> Result<Object, StatusError> {
    let object = ctx.registry().object("", plural, namespace, name).await?;
    object.map(|object| (*object).clone()).ok_or_else(|| StatusError::not_found("", plural, name))
}

/// Checks the object the token shall be bound to, and gives the claims about it.
async fn bind(ctx: &ActionContext<'_>, reference: &Value) -> Result<Vec<(&'static str, BoundObject)>, StatusError> {
    let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, plural, namespace) = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => ("pod", "pods", ctx.namespace),
        ("v1", "Secret") => ("secret", "secrets", ctx.namespace),
        ("v1", "Node") => ("node", "nodes", ""),
        (version, kind) => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let kind = format!("{group}/{version}, Kind={kind}");
            return Err(StatusError::bad_request(format!("cannot bind token for object of type {kind}")));
        }
    };
    let object = live(ctx, plural, namespace, text("name")).await?;
    let of = |object: &Object| BoundObject { name: object.name().to_owned(), uid: object.uid().to_owned() };
    if !text("uid").is_empty() && text("uid") != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(StatusError::conflict("", text("kind"), object.name(), why));
    }
    let mut bound = vec![(kind, of(&object))];
    if kind == "pod" {
        if object.str(&["spec", "serviceAccountName"]) != Some(ctx.name) {
            let why = format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                ctx.name
            );
            return Err(StatusError::bad_request(why));
        }
        let node = object.str(&["spec", "nodeName"]).unwrap_or_default();
        if !node.is_empty() {
            let found = ctx.registry().object("", "nodes", "", node).await?;
            let unknown = || BoundObject { name: node.to_owned(), uid: String::new() };
            bound.push(("node", found.as_deref().map_or_else(unknown, of)));
        }
    }
    Ok(bound)
}
