//! `/scale`: the number of replicas of any object that has one, as autoscaling/v1 Scale.

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use kminik_meta::patch::PatchType;
use kminik_meta::{FieldError, Object, Path, StatusError, labels};
use serde_json::{Value, json};

use super::call::{Call, WriteOptions};
use super::update::{self, Changed, Make};
use super::{patch, render};
use crate::http::accept::{self, Encoding};
use crate::http::body::{RequestBody, ResponseBody};
use crate::registry::def::{ScalePaths, Text};
use crate::schema;

/// Answers with the Scale of an object.
pub(crate) async fn get(call: &Call, paths: &ScalePaths) -> Result<Response<ResponseBody>, StatusError> {
    let entry = call.server.registry().get(&call.row, &call.info.namespace, &call.info.name).await?;
    let object = entry.ok_or_else(|| call.not_found())?.object()?;
    answer(call, paths, &object)
}

/// Answers a PUT or PATCH of the Scale.
pub(crate) async fn change(
    call: &Call,
    paths: &ScalePaths,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, StatusError> {
    let patching = call.info.verb == "patch";
    let kind = if patching { "PatchOptions" } else { "UpdateOptions" };
    let options = WriteOptions::of(&call.query, &call.headers, kind)?;
    let content_type = accept::content_type(&call.headers).unwrap_or_default();
    let form = match (patching, PatchType::from_content_type(&content_type)) {
        (false, _) => Form::Whole(accept::body_encoding(&call.headers)?),
        (true, Some(kind)) => Form::Patch(kind),
        (true, None) => {
            return Err(StatusError::unsupported_media_type(&PatchType::ALL.map(PatchType::content_type)));
        }
    };
    let body = call.body(request).await?;
    let changed = update::change(call, &options, Sent { call, options: &options, paths, form, body: &body }).await?;
    match changed {
        Changed::Stored(entry) => answer(call, paths, &*entry.object()?),
        Changed::DryRun(object) => answer(call, paths, &object),
    }
}

/// What a body is.
#[derive(Clone, Copy)]
enum Form {
    Whole(Encoding),
    Patch(PatchType),
}

/// A Scale as it was sent.
struct Sent<'a> {
    call: &'a Call,
    options: &'a WriteOptions,
    paths: &'a ScalePaths,
    form: Form,
    body: &'a [u8],
}

#[async_trait]
impl Make for Sent<'_> {
    async fn make(&mut self, present: &Object) -> Result<Object, StatusError> {
        let Sent { call, options, paths, form, body } = *self;
        let gvk = ScalePaths::gvk();
        let own = schema::of(&gvk)?;
        let scale = scale_of(paths, present)?;
        let scale = match form {
            Form::Whole(encoding) => {
                let decoded = schema::decode(body, encoding, &gvk, own, options.field_validation)?;
                call.warn(decoded.warnings);
                decoded.object
            }
            Form::Patch(PatchType::Apply) => return applied(call, options, paths, present, body).await,
            Form::Patch(kind) => {
                let warn = |warnings| call.warn(warnings);
                patch::patch_object(&scale, kind, body, own, options.field_validation, warn)?
            }
        };
        let mut wanted = present.clone();
        wanted.set_resource_version(scale.resource_version());
        let replicas = scale.i64(&["spec", "replicas"]).unwrap_or_default();
        check(present, replicas)?;
        set_replicas(paths, &scale, &mut wanted);
        Ok(wanted)
    }
}

fn check(present: &Object, replicas: i64) -> Result<(), StatusError> {
    if replicas >= 0 {
        return Ok(());
    }
    let path = Path::new("spec").child("replicas");
    let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
    Err(StatusError::invalid("autoscaling", "Scale", present.name(), &error.into()))
}

/// Server-side apply of a Scale: of the one field of the object that it stands for, whose owners are the object's.
async fn applied(
    call: &Call,
    options: &WriteOptions,
    paths: &ScalePaths,
    present: &Object,
    body: &[u8],
) -> Result<Object, StatusError> {
    let (scale, _) = schema::decode_configuration(body)?;
    if scale.gvk() != ScalePaths::gvk() {
        return Err(StatusError::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: {}",
            scale.api_version(),
            ScalePaths::gvk().api_version()
        )));
    }
    let mut configuration = Object::new(&call.gvk());
    for member in ["name", "namespace", "uid", "resourceVersion"] {
        if let Some(value) = scale.get(&["metadata", member]) {
            configuration.set(&["metadata", member], value.clone());
        }
    }
    if let Some(replicas) = scale.i64(&["spec", "replicas"]) {
        check(present, replicas)?;
        configuration.set(&path_of(&paths.spec_replicas), replicas);
    }
    schema::apply_configuration(call, options, present, &configuration).await
}

fn answer(call: &Call, paths: &ScalePaths, object: &Object) -> Result<Response<ResponseBody>, StatusError> {
    render::value_response(call, StatusCode::OK, &scale_of(paths, object)?.into())
}

/// The Scale of an object.
pub(crate) fn scale_of(paths: &ScalePaths, object: &Object) -> Result<Object, StatusError> {
    let number = |path: &Text| object.i64(&path_of(path)).unwrap_or_default();
    let mut status = json!({"replicas": number(&paths.status_replicas)});
    if let Some(path) = &paths.selector {
        let selector = object.get(&path_of(path));
        let text = match selector {
            Some(Value::String(text)) => text.clone(),
            other => labels::to_string_form(other).map_err(StatusError::internal)?,
        };
        status["selector"] = text.into();
    }
    let mut scale = Object::new(&ScalePaths::gvk());
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.get(&["metadata", key]) {
            scale.set(&["metadata", key], value.clone());
        }
    }
    scale.set(&["spec"], json!({"replicas": number(&paths.spec_replicas)}));
    scale.set(&["status"], status);
    Ok(scale)
}

/// Brings the number of a Scale into its object.
pub(crate) fn set_replicas(paths: &ScalePaths, scale: &Object, object: &mut Object) {
    object.set(&path_of(&paths.spec_replicas), scale.i64(&["spec", "replicas"]).unwrap_or_default());
}

fn path_of(path: &Text) -> Vec<&str> {
    path.split('.').filter(|part| !part.is_empty()).collect()
}
