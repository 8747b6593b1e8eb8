//! Subresources that are code: actions with an object as body, and raw connections.

use http::{Request, Response, StatusCode};
use kminik_meta::{Gvk, Object, StatusError, defaults};

use super::call::{Call, WriteOptions};
use super::{render, write};
use crate::admission::Operation;
use crate::http::accept;
use crate::http::body::{RequestBody, ResponseBody};
use crate::registry::action::{Action, Connect};
use crate::registry::def::Verb;
use crate::schema;

/// Decodes and admits the body, and answers with what the action gives.
pub(crate) async fn run(
    call: &Call,
    action: &dyn Action,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, StatusError> {
    let kind = action.kind();
    let gvk = Gvk::new(kind.group, kind.version, kind.kind);
    let options = WriteOptions::of(&call.query, &call.headers, "CreateOptions")?;
    let encoding = accept::body_encoding(&call.headers)?;
    let bytes = schema::read_body(request.into_body()).await?;
    let body = schema::of(&gvk)?;
    let decoded = schema::decode(&bytes, encoding, &gvk, body, options.field_validation)?;
    call.warn(decoded.warnings);
    let mut object = decoded.object;
    if object.name().is_empty() {
        object.set_name(&call.info.name);
    }
    write::check_identity(call, &mut object)?;
    defaults::apply(&mut object, body);
    let operation = if kind.verb == Verb::Create { Operation::Create } else { Operation::Update };
    let attributes = call.attributes(operation, &call.info.name, None, &options);
    call.server.admission().mutate(&attributes, &mut object).await?;
    call.server.admission().validate(&attributes, Some(&object)).await?;
    let answer: Object = action.run(call.action_context(options.dry_run), object).await?;
    let code = if kind.verb == Verb::Create { StatusCode::CREATED } else { StatusCode::OK };
    render::value_response(call, code, &answer.into())
}

/// Admits the connection and hands the request over.
pub(crate) async fn connect(
    call: &Call,
    connect: &dyn Connect,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, StatusError> {
    let options = WriteOptions::of(&call.query, &call.headers, connect.options_kind())?;
    let attributes = call.attributes(Operation::Connect, &call.info.name, None, &options);
    call.server.admission().validate(&attributes, None).await?;
    connect.connect(call.action_context(false), request).await
}
