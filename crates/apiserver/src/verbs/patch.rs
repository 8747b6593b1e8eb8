//! Patches of all kinds, server-side apply among them, through the optimistic loop of updates.

use async_trait::async_trait;
use http::{Request, Response};
use kminik_meta::decode::{self, FieldValidation};
use kminik_meta::patch::{self, PatchType};
use kminik_meta::schema::Schema;
use kminik_meta::{Object, StatusError};
use serde_json::Value;

use super::call::{Call, WriteOptions};
use super::update::Make;
use super::{create, update, write};
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
    let body = call.body(request).await?;
    // An applied configuration may be YAML, of which JSON is a part.
    call.audit.request_patch(|| serde_yaml::from_slice(&body).ok());
    if kind == PatchType::Apply {
        return apply(call, &options, &body).await;
    }
    if kind == PatchType::Strategic && !call.version.schema.is_named() {
        let known = [PatchType::Json, PatchType::Merge, PatchType::Apply];
        return Err(StatusError::unsupported_media_type(&known.map(PatchType::content_type)));
    }
    let changed =
        update::change(call, &options, |present: &Object| patched(call, &options, kind, present, &body)).await?;
    update::answer(call, changed)
}

/// Server-side apply: merges into the present object, or creates it.
async fn apply(call: &Call, options: &WriteOptions, body: &[u8]) -> Result<Response<ResponseBody>, StatusError> {
    let (configuration, duplicates) = schema::decode_configuration(body)?;
    let mut merge = Merge { call, options, configuration: &configuration, duplicates: &duplicates };
    match update::change(call, options, merge).await {
        Err(error) if error.code() == 404 && call.info.subresource.is_empty() => {
            let mut object = merge.make(&Object::new(&call.gvk())).await?;
            if !object.uid().is_empty() {
                let why = format!(
                    "uid mismatch: the provided object specified uid {}, and no existing object was found",
                    object.uid()
                );
                return Err(StatusError::conflict(&call.row.group, &call.row.plural, &call.info.name, why));
            }
            object.set_name(&call.info.name);
            create::create_by_other_verb(call, options, object).await
        }
        changed => update::answer(call, changed?),
    }
}

/// Merges a configuration into what is there.
#[derive(Clone, Copy)]
struct Merge<'a> {
    call: &'a Call,
    options: &'a WriteOptions,
    configuration: &'a Object,
    duplicates: &'a [String],
}

#[async_trait]
impl Make for Merge<'_> {
    async fn make(&mut self, present: &Object) -> Result<Object, StatusError> {
        let Merge { call, options, configuration, duplicates } = *self;
        let mut object = schema::apply_configuration(call, options, present, configuration).await?;
        report_duplicates(call, options, duplicates)?;
        write::check_identity(call, &mut object)?;
        Ok(object)
    }
}

/// Warns of members that a configuration has twice.
///
/// # Errors
/// 400 under strict validation.
fn report_duplicates(call: &Call, options: &WriteOptions, duplicates: &[String]) -> Result<(), StatusError> {
    match (options.field_validation, duplicates) {
        (FieldValidation::Ignore, _) | (_, []) => Ok(()),
        (FieldValidation::Warn, _) => {
            call.warn(duplicates.iter().flat_map(|report| decode::lines_of_report(report)));
            Ok(())
        }
        (FieldValidation::Strict, _) => Err(StatusError::bad_request(format!(
            "error strict decoding YAML: error converting YAML to JSON: {}",
            duplicates.join("\n")
        ))),
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
    let (own, warn) = (&*call.version.schema, |warnings| call.warn(warnings));
    let mut object = patch_object(present, kind, body, own, options.field_validation, warn)?;
    write::check_identity(call, &mut object)?;
    Ok(object)
}

/// Applies a patch to any object of a type and brings the outcome into normal form.
///
/// # Errors
/// 400 for what is no patch, 422 for one that does not fit the object or whose outcome does not fit the kind.
pub(super) fn patch_object(
    present: &Object,
    kind: PatchType,
    body: &[u8],
    own: &Schema,
    validation: FieldValidation,
    warn: impl FnOnce(Vec<String>),
) -> Result<Object, StatusError> {
    let run = || match kind {
        PatchType::Json => patch::json(present, body),
        PatchType::Merge => patch::merge(present, body),
        PatchType::Strategic | PatchType::Apply => patch::strategic(present, body, own),
    };
    let outcome = run().map_err(|error| error.status())?;
    let (mut object, mut issues) = (outcome.object, outcome.warnings);
    // What a refusal shows is made again, since the outcome is changed by then.
    let refused = |why: String| {
        let shown = match kind {
            PatchType::Strategic | PatchType::Apply => {
                decode::parse_value(body).map(|(patch, _)| kminik_meta::go::text(&patch)).ok()
            }
            PatchType::Json | PatchType::Merge => run().map(|outcome| Value::from(outcome.object).to_string()).ok(),
        };
        patch::refused(&shown.unwrap_or_default(), why)
    };
    issues.extend(schema::normalize_patched(own, &mut object, validation).map_err(refused)?);
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => warn(issues),
        FieldValidation::Strict if issues.is_empty() => {}
        FieldValidation::Strict => return Err(refused(format!("strict decoding error: {}", issues.join(", ")))),
    }
    Ok(object)
}
