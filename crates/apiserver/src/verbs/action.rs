//! Subresources that are code: actions with an object as body, and raw connections.

use http::{Request, Response, StatusCode};
use kminik_meta::decode::FieldValidation;
use kminik_meta::schema::{Leaf, Shape};
use kminik_meta::{Gvk, Object, StatusError, defaults};
use serde_json::Value;

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
    let bytes = call.body(request).await?;
    let body = schema::of(&gvk)?;
    // The body names its version only where there is another one that it may have.
    let former = (!kind.former.is_empty()).then(|| schema::found_type(&bytes, encoding)).filter(|sent| {
        sent.group == gvk.group && sent.kind == gvk.kind && kind.former.contains(&sent.version.as_str())
    });
    let decoded = schema::decode(&bytes, encoding, former.as_ref().unwrap_or(&gvk), body, options.field_validation)?;
    call.warn(decoded.warnings);
    let mut object = decoded.object;
    object.set_gvk(&gvk);
    if object.name().is_empty() {
        object.set_name(&call.info.name);
    }
    write::check_identity(call, &mut object)?;
    defaults::apply(&mut object, body);
    let operation = if kind.verb == Verb::Create { Operation::Create } else { Operation::Update };
    let attributes = call.attributes(operation, &call.info.name, None, &options);
    call.server.admission().mutate(&attributes, &mut object).await?;
    schema::normalize(&gvk, body, &mut object, FieldValidation::Ignore)?;
    call.server.admission().validate(&attributes, Some(&object)).await?;
    let answer: Object = action.run(call.action_context(Some(&options)), object).await?;
    let code = if kind.verb == Verb::Create { StatusCode::CREATED } else { StatusCode::OK };
    render::value_response(call, code, &answer.into())
}

/// Admits the connection and hands the request over. What admission makes of the connection's options is what counts.
pub(crate) async fn connect(
    call: &Call,
    connect: &dyn Connect,
    mut request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, StatusError> {
    let options = WriteOptions::of(&call.query, &call.headers, connect.options_kind())?;
    // What answers with the row's own kind (a pod's log) is read, not connected to.
    if connect.options_kind() != call.row.kind {
        let gvk = Gvk::new("", "v1", connect.options_kind());
        let mut object = connection_options(call, &gvk)?;
        let before = object.clone();
        let attributes = call.attributes(Operation::Connect, &call.info.name, None, &options);
        call.server.admission().mutate(&attributes, &mut object).await?;
        call.server.admission().validate(&attributes, Some(&object)).await?;
        if object != before {
            set_query(&mut request, &object)?;
        }
    }
    connect.connect(call.action_context(Some(&options)), request).await
}

/// The options of a connection, which come in the query, as the object that they are in the API.
fn connection_options(call: &Call, gvk: &Gvk) -> Result<Object, StatusError> {
    let mut object = Object::new(gvk);
    for field in schema::of(gvk)?.fields() {
        let name = field.name.as_ref();
        let mut values = call.query.all(name).map(str::to_owned);
        let value = match &field.schema.get().shape {
            Shape::List { .. } => {
                let items: Vec<Value> = values.map(Value::from).collect();
                (!items.is_empty()).then(|| Value::from(items))
            }
            Shape::Leaf { leaf: Leaf::Boolean, .. } => call.query.flag(name).then(|| Value::from(true)),
            _ if name == "path" => Some(Value::from(call.info.rest.as_str())),
            _ => values.next().map(Value::from),
        };
        if let Some(value) = value {
            object.set(&[name], value);
        }
    }
    Ok(object)
}

/// Writes the options back into the query.
fn set_query(request: &mut Request<RequestBody>, options: &Object) -> Result<(), StatusError> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (name, value) in options.map() {
        match (name.as_str(), value) {
            ("apiVersion" | "kind" | "path", _) => {}
            (_, Value::Array(items)) => {
                for item in items {
                    query.append_pair(name, &text(item));
                }
            }
            (_, value) => {
                query.append_pair(name, &text(value));
            }
        }
    }
    let uri = format!("{}?{}", request.uri().path(), query.finish());
    *request.uri_mut() = uri.parse().map_err(StatusError::internal)?;
    Ok(())
}
