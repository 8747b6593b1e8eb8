//! Bodies of requests: reading, decoding, checking against the schema.

use std::sync::OnceLock;

use bytes::Bytes;
use http_body_util::BodyExt;
use kminik_meta::apply::{self, Convert, Write};
use kminik_meta::decode::{self, Decoded, FieldValidation};
use kminik_meta::field::quote;
use kminik_meta::schema::{self, Schema};
use kminik_meta::{GroupVersion, Gvk, Object, StatusError, defaults, protobuf};
use parking_lot::Mutex;
use serde_json::Value;

use crate::http::accept::Encoding;
use crate::http::body::RequestBody;
use crate::verbs::call::{Call, Form, WriteOptions};

const MANAGED: &[&str] = &["metadata", "managedFields"];
/// Versions that one merge of fields can have to ask for, one after the other: far more than a resource has.
const MERGE_ROUNDS: usize = 64;
/// A body may be so large.
pub(crate) const BODY_LIMIT: usize = 3 << 20;

/// Reads a whole body.
///
/// # Errors
/// 413 beyond [`BODY_LIMIT`], 400 where the connection fails.
pub(crate) async fn read_body(mut body: RequestBody) -> Result<Bytes, StatusError> {
    let mut frames: Vec<Bytes> = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| StatusError::bad_request(format!("the body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > BODY_LIMIT {
            return Err(StatusError::too_large(format!("limit is {BODY_LIMIT}")));
        }
        frames.push(data);
    }
    Ok(match frames.len() {
        1 => frames.pop().unwrap_or_default(),
        _ => Bytes::from(frames.concat()),
    })
}

/// The type of a kind that is no row's: options, Scale, the bodies of actions.
///
/// # Errors
/// 500 for a kind that has none: a mistake in the program.
pub(crate) fn of(gvk: &Gvk) -> Result<&'static Schema, StatusError> {
    schema::lookup(gvk).ok_or_else(|| StatusError::internal(format!("no schema for {gvk}")))
}

/// Decodes an object of this kind into normal form, without defaults.
///
/// # Errors
/// 400 for what is no object of it, or has unknown fields and `validation` is strict.
pub(crate) fn decode(
    bytes: &[u8],
    encoding: Encoding,
    gvk: &Gvk,
    schema: &Schema,
    validation: FieldValidation,
) -> Result<Decoded, StatusError> {
    let decoded = match encoding {
        Encoding::Json => decode::decode(bytes, schema, validation),
        Encoding::Yaml => decode::decode_yaml(bytes, schema, validation),
        Encoding::Protobuf => protobuf::decode(bytes, schema),
    };
    let mut decoded = decoded.map_err(|error| error.status(gvk, &found_type(bytes, encoding), bytes))?;
    check_type(gvk, &decoded.object)?;
    decoded.object.set_gvk(gvk);
    Ok(decoded)
}

/// What a body says it is; empty where it cannot be read.
pub(crate) fn found_type(bytes: &[u8], encoding: Encoding) -> Gvk {
    #[derive(Default, serde::Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct TypeMeta {
        api_version: String,
        kind: String,
    }
    let head: TypeMeta = match encoding {
        Encoding::Json => serde_json::from_slice(bytes).unwrap_or_default(),
        Encoding::Yaml => serde_yaml::from_slice(bytes).unwrap_or_default(),
        Encoding::Protobuf => protobuf::envelope(bytes)
            .map(|envelope| TypeMeta { api_version: envelope.api_version.into(), kind: envelope.kind.into() })
            .unwrap_or_default(),
    };
    GroupVersion::parse(&head.api_version).unwrap_or_default().kind(head.kind)
}

/// Whether an object is of the kind that is expected; what it leaves out is taken as expected.
fn check_type(wanted: &Gvk, object: &Object) -> Result<(), StatusError> {
    let wrong_kind = !object.kind().is_empty() && object.kind() != wanted.kind;
    let wrong_version = !object.api_version().is_empty() && object.api_version() != wanted.api_version();
    if wrong_kind {
        let found = object.gvk();
        return Err(StatusError::bad_request(format!(
            "{} in version {} cannot be handled as a {}: no kind {} is registered for the internal version of group {} in scheme",
            found.kind,
            quote(&found.version),
            wanted.kind,
            quote(&found.kind),
            quote(&wanted.group)
        )));
    }
    if wrong_version {
        return Err(StatusError::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            object.api_version(),
            wanted.api_version()
        )));
    }
    Ok(())
}

/// Brings a patched or admitted object into normal form with defaults; gives the warnings.
///
/// # Errors
/// 400 or 422 when it does not fit the schema.
pub(crate) fn normalize(
    gvk: &Gvk,
    schema: &Schema,
    object: &mut Object,
    validation: FieldValidation,
) -> Result<Vec<String>, StatusError> {
    let warnings = decode::conform(object, schema, validation).map_err(|error| error.status(gvk, gvk, b""))?;
    defaults::apply(object, schema);
    Ok(warnings)
}

/// Records who manages the written fields, as the request's version names them; `new` is complete and in the version that the row
/// works in.
pub(crate) async fn manage_fields(
    call: &Call,
    options: &WriteOptions,
    old: Option<&Object>,
    new: &mut Object,
) -> Result<(), StatusError> {
    if options.applying {
        return Ok(());
    }
    if call.reads_stored_form() {
        return track(call, options, old, new).await;
    }
    let in_request = |object: &Object| {
        let mut object = object.clone();
        call.to_request_version(&mut object);
        object
    };
    let mut tracked = in_request(new);
    track(call, options, old.map(in_request).as_ref(), &mut tracked).await?;
    match tracked.remove(MANAGED) {
        Some(entries) => new.set(MANAGED, entries),
        None => drop(new.remove(MANAGED)),
    }
    Ok(())
}

async fn track(call: &Call, options: &WriteOptions, old: Option<&Object>, new: &mut Object) -> Result<(), StatusError> {
    // A merge that has to be begun anew begins with what was sent.
    let sent = call.row.hub.as_ref().map(|_| new.get(MANAGED).cloned());
    let tracked = merged(call, options, |write| {
        match &sent {
            Some(Some(sent)) => new.set(MANAGED, sent.clone()),
            Some(None) => drop(new.remove(MANAGED)),
            None => {}
        }
        apply::update(old, new, write)
    });
    let untracked = match tracked.await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::debug!(error = untracked, name = new.name(), "a write's fields are not tracked");
    Ok(())
}

/// Runs a merge of fields, which asks as it goes for objects in the versions in which their managers named them. Where these
/// must be waited for, it is run again until it has all it asks for.
///
/// # Errors
/// 500 for a conversion that fails.
async fn merged<T>(
    call: &Call,
    options: &WriteOptions,
    mut merge: impl FnMut(Write<'_>) -> T + Send,
) -> Result<T, StatusError> {
    let (forms, api_version) = (OnceLock::new(), call.api_version());
    let Some(hub) = &call.row.hub else {
        let convert = |value: &Value, version: &str| at_version(forms.get_or_init(|| call.forms()), value, version);
        return Ok(merge(field_write(call, options, &api_version, &convert)));
    };
    let mut known: Vec<(Value, String, Value)> = Vec::new();
    for _ in 0..MERGE_ROUNDS {
        let missing = Mutex::new(Vec::new());
        let convert = |value: &Value, version: &str| {
            let schema = hub.converter.schema(version)?;
            if value.get("apiVersion").and_then(Value::as_str) == Some(version) {
                return Some((value.clone(), schema));
            }
            let found = known.iter().find(|(from, to, _)| to == version && from == value);
            if found.is_none() {
                missing.lock().push((value.clone(), version.to_owned()));
            }
            found.map(|(_, _, there)| (there.clone(), schema))
        };
        let outcome = merge(field_write(call, options, &api_version, &convert));
        let missing = missing.into_inner();
        if missing.is_empty() {
            return Ok(outcome);
        }
        drop(outcome);
        for (value, version) in missing {
            let Ok(object) = Object::try_from(value.clone()) else { continue };
            let there = hub.convert_one(object, &version).await?;
            known.push((value, version, there.into()));
        }
    }
    Err(StatusError::internal("the versions of managed fields cannot be brought together"))
}

/// Merges an applied configuration into the present object, both in the request's version; the result is in normal form.
///
/// # Errors
/// 409 where other managers own what would change; 400 and 500 for a configuration that does not fit.
pub(crate) async fn apply_configuration(
    call: &Call,
    options: &WriteOptions,
    present: &Object,
    configuration: &Object,
) -> Result<Object, StatusError> {
    let applied = merged(call, options, |write| apply::apply(present, configuration, options.force, write));
    let mut object = applied.await?.map_err(|error| error.status())?;
    call.warn(normalize(&call.gvk(), &call.version.schema, &mut object, options.field_validation)?);
    Ok(object)
}

/// An object as another version of its resource (or of another view of the same objects) shows it.
fn at_version<'a>(forms: &'a [Form], value: &Value, api_version: &str) -> Option<(Value, &'a Schema)> {
    let form = |version: &str| forms.iter().find(|form| form.gvk.api_version() == version);
    let mut object = Object::try_from(value.clone()).ok()?;
    let (source, target) = (form(object.api_version())?, form(api_version)?);
    if object.api_version() != api_version {
        if let Some(conversion) = source.conversion {
            (conversion.to_stored)(&mut object);
        }
        if let Some(conversion) = target.conversion {
            (conversion.from_stored)(&mut object);
        }
        object.set_gvk(&target.gvk);
    }
    Some((object.into(), &target.schema))
}

fn field_write<'a>(
    call: &'a Call,
    options: &'a WriteOptions,
    api_version: &'a str,
    convert: &'a Convert<'a>,
) -> Write<'a> {
    let resets = call.row.resets(&call.info.subresource);
    let (manager, subresource) = (options.field_manager.as_str(), call.info.subresource.as_str());
    let schema = &*call.version.schema;
    Write { schema, manager, api_version, subresource, resets, now: call.now, convert: Some(convert) }
}

/// Reads the configuration of a server-side apply, which is YAML (or JSON, a part of it) and stays as it was sent. The second
/// part is what its duplicate members amount to.
///
/// # Errors
/// 400 for what is no object.
pub(crate) fn decode_configuration(bytes: &[u8]) -> Result<(Object, Vec<String>), StatusError> {
    let decoded =
        decode::parse_yaml(bytes).map_err(|error| StatusError::bad_request(format!("error decoding YAML: {error}")))?;
    Ok((decoded.object, decoded.warnings))
}

/// Brings the outcome of a patch into normal form with defaults; gives a text for each unknown field.
///
/// # Errors
/// In words, where the outcome does not fit the schema.
pub(crate) fn normalize_patched(
    schema: &Schema,
    object: &mut Object,
    validation: FieldValidation,
) -> Result<Vec<String>, String> {
    let lenient = match validation {
        FieldValidation::Ignore => FieldValidation::Ignore,
        FieldValidation::Warn | FieldValidation::Strict => FieldValidation::Warn,
    };
    let warnings = decode::conform(object, schema, lenient).map_err(|error| error.to_string())?;
    defaults::apply(object, schema);
    Ok(warnings)
}

/// Decodes DeleteOptions; which group's they say they are is not looked at.
///
/// # Errors
/// 400 for what is no object.
pub(crate) fn decode_options(bytes: &[u8], encoding: Encoding) -> Result<Object, StatusError> {
    let gvk = Gvk::new("meta.k8s.io", "v1", "DeleteOptions");
    let schema = of(&gvk)?;
    let decoded = match encoding {
        Encoding::Json => decode::decode(bytes, schema, FieldValidation::Ignore),
        Encoding::Yaml => decode::decode_yaml(bytes, schema, FieldValidation::Ignore),
        Encoding::Protobuf => protobuf::decode(bytes, schema),
    };
    Ok(decoded.map_err(|error| error.status(&gvk, &gvk, bytes))?.object)
}
