//! The verbs, one file each, and the parts of the pipeline they share.

pub(crate) mod action;
pub(crate) mod call;
pub(crate) mod computed;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod metadata;
pub(crate) mod patch;
pub(crate) mod render;
pub(crate) mod scale;
pub(crate) mod selection;
pub(crate) mod stalled;
pub(crate) mod table;
pub(crate) mod update;
pub(crate) mod watch;
pub(crate) mod write;

use http::{Request, Response};
use kminik_meta::StatusError;

use self::call::Call;
use crate::http::body::{RequestBody, ResponseBody};
use crate::registry::def::{Storage, SubresourceKind, Verb};

/// Runs an authorised request of a resource.
///
/// # Errors
/// Whatever the verb refuses with.
pub(crate) async fn run(call: Call, request: Request<RequestBody>) -> Result<Response<ResponseBody>, StatusError> {
    let has = |verb: Verb| call.row.verbs.contains(&verb);
    if !call.info.subresource.is_empty() {
        return subresource(call, request).await;
    }
    let one = !call.info.name.is_empty();
    if let Storage::Computed(source) = &call.row.storage {
        return match call.info.verb.as_str() {
            "get" => computed::get(&call, source.as_ref()).await,
            "list" => computed::list(&call, source.as_ref()).await,
            _ => Err(StatusError::method_not_allowed()),
        };
    }
    match call.info.verb.as_str() {
        "get" if has(Verb::Get) => get::get(&call).await,
        "list" if has(Verb::List) => list::list(&call).await,
        "watch" if has(Verb::Watch) => watch::watch(call).await,
        "create" if has(Verb::Create) && call.info.name.is_empty() && call.scope_given() => {
            create::create(&call, request).await
        }
        "update" if has(Verb::Update) && one && call.scope_given() => update::update(&call, request).await,
        "patch" if has(Verb::Patch) && one && call.scope_given() => patch::patch(&call, request).await,
        "delete" if has(Verb::Delete) && call.scope_given() => delete::delete(&call, request).await,
        "deletecollection" if has(Verb::DeleteCollection) => delete::delete_collection(&call, request).await,
        _ => Err(StatusError::method_not_allowed()),
    }
}

async fn subresource(call: Call, request: Request<RequestBody>) -> Result<Response<ResponseBody>, StatusError> {
    let Some(subresource) = call.row.subresource(&call.info.subresource) else {
        return Err(StatusError::resource_not_found());
    };
    match (&subresource.kind, call.info.verb.as_str()) {
        (SubresourceKind::View(_), "get") => get::get(&call).await,
        (SubresourceKind::View(_), "update") => update::update(&call, request).await,
        (SubresourceKind::View(_), "patch") => patch::patch(&call, request).await,
        (SubresourceKind::Scale(paths), "get") => scale::get(&call, paths).await,
        (SubresourceKind::Scale(paths), "update" | "patch") => scale::change(&call, paths, request).await,
        (SubresourceKind::Action(action), verb) if verb == action.kind().verb.as_str() => {
            action::run(&call, action.as_ref(), request).await
        }
        (SubresourceKind::Connect(connect), _) => {
            let method = request.method().as_str();
            if !connect.methods().iter().any(|(served, _)| *served == method) {
                return Err(StatusError::method_not_allowed());
            }
            action::connect(&call, connect.as_ref(), request).await
        }
        _ => Err(StatusError::method_not_allowed()),
    }
}
