//! Patches of all kinds, server-side apply among them, through the optimistic loop of updates.

use http::{Request, Response, StatusCode};
use kminik_meta::decode::FieldValidation;
use kminik_meta::patch::{self, PatchType};
use kminik_meta::{Object, StatusError};

use super::call::{Call, WriteOptions};
use super::create::{self, Created};
use super::{render, update, write};
use crate::http::accept;
use crate::http::body::{RequestBody, ResponseBody};
use crate::schema;

/// Answers a PATCH.
pub(crate) async fn patch(call: &Call, request: Request<RequestBody>) -> Result<Response<ResponseBody>, StatusError> {
    let options = WriteOptions::of(&call.query, &call.headers, "PatchOptions")?;
    let content_type = accept::content_type(&call.headers).unwrap_or_default();
    let Some(kind) = PatchType::from_content_type(&content_type) else {
        return Err(StatusError::unsupported_media_type(&PatchType::ALL.map(PatchType::content_type)));
    };
    let body = schema::read_body(request.into_body()).await?;
    if kind == PatchType::Apply {
        return apply(call, &options, &body).await;
    }
    if kind == PatchType::Strategic && !call.version.schema.is_named() {
        let known = [PatchType::Json, PatchType::Merge, PatchType::Apply];
        return Err(StatusError::unsupported_media_type(&known.map(PatchType::content_type)));
    }
    let changed = update::change(call, &options, |present| patched(call, &options, kind, present, &body)).await?;
    update::answer(call, changed)
}

/// Server-side apply: merges into the present object, or creates it.
async fn apply(call: &Call, options: &WriteOptions, body: &[u8]) -> Result<Response<ResponseBody>, StatusError> {
    let configuration = schema::decode_configuration(body)?;
    let merge = |present: &Object| {
        let mut object = schema::apply_configuration(call, options, present, &configuration)?;
        write::check_identity(call, &mut object)?;
        Ok(object)
    };
    match update::change(call, options, merge).await {
        Err(error) if error.code() == 404 && call.info.subresource.is_empty() => {
            let mut object = merge(&Object::new(&call.gvk()))?;
            object.set_name(&call.info.name);
            match create::create_object(call, options, object).await? {
                Created::Stored(entry) => render::entry(call, StatusCode::CREATED, &entry),
                Created::DryRun(mut object) => {
                    call.to_request_version(&mut object);
                    render::object(call, StatusCode::CREATED, object)
                }
            }
        }
        changed => update::answer(call, changed?),
    }
}

/// The present object with the patch applied, in normal form.
fn patched(
    call: &Call,
    options: &WriteOptions,
    kind: PatchType,
    present: &Object,
    body: &[u8],
) -> Result<Object, StatusError> {
    let own = &*call.version.schema;
    let result = match kind {
        PatchType::Json => patch::json(present, body),
        PatchType::Merge => patch::merge(present, body),
        PatchType::Strategic | PatchType::Apply => patch::strategic(present, body, own),
    };
    let result = result.map_err(|error| error.status())?;
    let mut warnings = result.warnings;
    let mut object = result.object;
    warnings.extend(schema::normalize(&call.gvk(), own, &mut object, options.field_validation)?);
    match options.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => call.warn(warnings),
        FieldValidation::Strict if warnings.is_empty() => {}
        FieldValidation::Strict => {
            return Err(StatusError::bad_request(format!("strict decoding error: {}", warnings.join(", "))));
        }
    }
    write::check_identity(call, &mut object)?;
    Ok(object)
}
