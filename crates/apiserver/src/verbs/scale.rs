//! `/scale`: the number of replicas of any object that has one, as autoscaling/v1 Scale.

use http::{Request, Response, StatusCode};
use kminik_meta::decode::FieldValidation;
use kminik_meta::patch::{self, PatchType};
use kminik_meta::{FieldError, Gvk, Object, Path, StatusError, labels};
use serde_json::{Value, json};

use super::call::{Call, WriteOptions};
use super::render;
use super::update::{self, Changed};
use crate::http::accept;
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
    let gvk = scale_kind();
    let content_type = accept::content_type(&call.headers).unwrap_or_default();
    let encoding = if patching { None } else { Some(accept::body_encoding(&call.headers)?) };
    let body = schema::read_body(request.into_body()).await?;
    let changed = update::change(call, &options, |present| {
        let mut scale = scale_of(paths, present)?;
        scale = match encoding {
            Some(encoding) => {
                schema::decode(&body, encoding, &gvk, schema::of(&gvk)?, options.field_validation)?.object
            }
            None => patched(&scale, &content_type, &body)?,
        };
        let mut wanted = present.clone();
        wanted.set_resource_version(scale.resource_version());
        let replicas = scale.i64(&["spec", "replicas"]).unwrap_or_default();
        if replicas < 0 {
            let path = Path::new("spec").child("replicas");
            let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
            return Err(StatusError::invalid("autoscaling", "Scale", present.name(), &error.into()));
        }
        wanted.set(&path_of(&paths.spec_replicas), replicas);
        Ok(wanted)
    })
    .await?;
    match changed {
        Changed::Stored(entry) => answer(call, paths, &*entry.object()?),
        Changed::DryRun(object) => answer(call, paths, &object),
    }
}

fn patched(scale: &Object, content_type: &str, body: &[u8]) -> Result<Object, StatusError> {
    let gvk = scale_kind();
    let own = schema::of(&gvk)?;
    let result = match PatchType::from_content_type(content_type) {
        Some(PatchType::Json) => patch::json(scale, body),
        Some(PatchType::Merge) => patch::merge(scale, body),
        Some(PatchType::Strategic) => patch::strategic(scale, body, own),
        Some(PatchType::Apply) | None => {
            let known = [PatchType::Json, PatchType::Merge, PatchType::Strategic].map(PatchType::content_type);
            return Err(StatusError::unsupported_media_type(&known));
        }
    };
    let mut object = result.map_err(|error| error.status())?.object;
    schema::normalize(&gvk, own, &mut object, FieldValidation::Ignore)?;
    Ok(object)
}

fn scale_kind() -> Gvk {
    Gvk::new("autoscaling", "v1", "Scale")
}

fn answer(call: &Call, paths: &ScalePaths, object: &Object) -> Result<Response<ResponseBody>, StatusError> {
    render::value_response(call, StatusCode::OK, &scale_of(paths, object)?.into())
}

fn scale_of(paths: &ScalePaths, object: &Object) -> Result<Object, StatusError> {
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
    let mut scale = Object::new(&scale_kind());
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.get(&["metadata", key]) {
            scale.set(&["metadata", key], value.clone());
        }
    }
    scale.set(&["spec"], json!({"replicas": number(&paths.spec_replicas)}));
    scale.set(&["status"], status);
    Ok(scale)
}

fn path_of(path: &Text) -> Vec<&str> {
    path.split('.').filter(|part| !part.is_empty()).collect()
}
