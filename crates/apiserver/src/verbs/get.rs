//! One object.

use http::{Response, StatusCode};
use kminik_meta::StatusError;

use super::call::Call;
use super::list::ListOptions;
use super::render;
use crate::http::body::ResponseBody;

/// Answers with the object as the store has it now; `resourceVersion` asks for at least that revision.
pub(crate) async fn get(call: &Call) -> Result<Response<ResponseBody>, StatusError> {
    let options = ListOptions::of(call)?;
    if let Some(revision) = options.revision {
        call.server.registry().cache().reach(revision).await?;
    }
    let entry = call.server.registry().get(&call.row, &call.info.namespace, &call.info.name).await?;
    render::entry(call, StatusCode::OK, &*entry.ok_or_else(|| call.not_found())?)
}
