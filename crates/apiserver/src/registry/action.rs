//! Code behind a path that is not one of the verbs: reviews, actions below an object, raw connections.

use async_trait::async_trait;
use http::{Request, Response};
use jiff::Timestamp;
use kminik_meta::{Object, StatusError};

use super::Registry;
use super::def::{ResourceDef, Verb, VersionDef};
use crate::Server;
use crate::auth::UserInfo;
use crate::http::body::{RequestBody, ResponseBody};

/// The request an action or connection answers.
#[derive(Clone, Copy)]
pub struct ActionContext<'a> {
    /// The whole server: authorizer, configuration, registry.
    pub server: &'a Server,
    pub row: &'a ResourceDef,
    pub version: &'a VersionDef,
    pub user: &'a UserInfo,
    /// Empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Empty for a virtual resource.
    pub name: &'a str,
    /// As in the URL; empty for a virtual resource.
    pub subresource: &'a str,
    /// What follows the subresource in the URL, without its first slash (`proxy/{path}`).
    pub path: &'a str,
    /// RBAC verb of the request.
    pub verb: &'a str,
    pub dry_run: bool,
    /// Who manages the fields that are written.
    pub field_manager: &'a str,
    pub now: Timestamp,
}

impl ActionContext<'_> {
    pub fn registry(&self) -> &Registry {
        self.server.registry()
    }
}

/// A virtual resource: answers a create with an object. The body is decoded, defaulted and validated by its schema.
#[async_trait]
pub trait Create: Send + Sync + 'static {
    async fn create(&self, ctx: ActionContext<'_>, object: Object) -> Result<Object, StatusError>;
}

/// A resource whose objects are made at each read.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// All of them, of the context's namespace if it has one.
    ///
    /// # Errors
    /// When they cannot be known.
    async fn objects(&self, ctx: ActionContext<'_>) -> Result<Vec<Object>, StatusError>;
}

/// What an action is given and answers with.
#[derive(Clone, Copy, Debug)]
pub struct ActionKind {
    pub group: &'static str,
    pub version: &'static str,
    /// Versions no longer served whose bodies, of the same fields, are taken too: older clients still send them.
    pub former: &'static [&'static str],
    pub kind: &'static str,
    /// The verb it answers: create for most, update for `finalize`.
    pub verb: Verb,
}

/// A subresource that is code: its body is an object of [`ActionKind`], already decoded and admitted.
#[async_trait]
pub trait Action: Send + Sync + 'static {
    fn kind(&self) -> ActionKind;
    async fn run(&self, ctx: ActionContext<'_>, object: Object) -> Result<Object, StatusError>;
}

/// A subresource that takes the request over, upgrades included.
#[async_trait]
pub trait Connect: Send + Sync + 'static {
    /// HTTP methods it serves, with the RBAC verb each needs (`("GET", Verb::Get)`, `("POST", Verb::Create)`).
    fn methods(&self) -> &'static [(&'static str, Verb)];
    /// Kind of the options in discovery (`PodExecOptions`).
    fn options_kind(&self) -> &'static str;
    async fn connect(
        &self,
        ctx: ActionContext<'_>,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, StatusError>;
}
