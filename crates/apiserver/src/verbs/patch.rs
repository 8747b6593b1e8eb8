//! Patches: JSON patch, merge patch and strategic merge patch through the optimistic loop of updates.

use http::{Request, Response};
use kminik_meta::decode::FieldValidation;
use kminik_meta::patch::{self, PatchType};
use kminik_meta::{Object, StatusError};

use super::call::{Call, WriteOptions};
use super::{update, write};
use crate::http::accept;
use crate::http::body::{RequestBody, ResponseBody};
use crate::schema;

/// Answers a PATCH.
pub async fn patch(call: &Call, request: Request<RequestBody>) -> Result<Response<ResponseBody>, StatusError> {
    let options = WriteOptions::of(&call.query, &call.headers, "PatchOptions")?;
    let content_type = accept::content_type(&call.headers).unwrap_or_default();
    let kind = PatchType::from_content_type(&content_type).filter(|kind| *kind != PatchType::Apply);
    let Some(kind) = kind else {
        let known = [PatchType::Json, PatchType::Merge, PatchType::Strategic].map(PatchType::content_type);
        return Err(StatusError::unsupported_media_type(&known));
    };
    let body = schema::read_body(request.into_body()).await?;
    let changed = update::change(call, &options, |present| patched(call, &options, kind, present, &body)).await?;
    update::answer(call, changed)
}

/// The present object with the patch applied, in normal form.
fn patched(
    call: &Call,
    options: &WriteOptions,
    kind: PatchType,
    present: &Object,
    body: &[u8],
) -> Result<Object, StatusError> {
    let gvk = call.gvk();
    let result = match kind {
        PatchType::Json => patch::json(present, body),
        PatchType::Merge => patch::merge(present, body),
        PatchType::Strategic | PatchType::Apply => patch::strategic(present, body, schema::of(&gvk)?),
    };
    let result = result.map_err(|error| error.status())?;
    let mut warnings = result.warnings;
    let mut object = result.object;
    warnings.extend(schema::normalize(&gvk, &mut object, options.field_validation)?);
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
