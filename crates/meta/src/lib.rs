//! Pure knowledge of Kubernetes objects: the dynamic [`Object`], names, selectors, quantities, errors as a `Status`, and what is
//! driven by the field table: decoding, defaulting, patches, server-side apply, validation, columns and OpenAPI.
//!
//! Everything here is a function of its arguments. It owns no file, port or thread.
//!
//! What a write passes through, in order:
//!
//! 1. [`schema::lookup`] finds the kind's structure in the generated field table.
//! 2. [`decode::decode`] (or [`protobuf::decode`]) reads the body, names unknown and duplicate fields, and gives the normal form;
//!    [`patch`] and [`apply`] change a stored object instead, and [`decode::conform`] brings the outcome into normal form.
//! 3. [`defaults::apply`] fills in what is left out.
//! 4. [`gates::drop_disabled`] drops what belongs to features that are off.
//! 5. [`validate::create`] and [`validate::update`] give the errors that [`StatusError::invalid`] turns into a `Status`.
//! 6. [`apply::update`] notes who changed which field.
//!
//! [`columns`] and [`openapi`] render what `kubectl get`, `explain` and `apply` ask for.
//!
//! **Invariant:** no I/O, no tokio, no global mutable state. **Invariant:** nothing here knows how objects are stored or served.
//! **Invariant:** no input, however hostile, panics or recurses without bound.

pub mod apply;
pub mod columns;
pub mod convert;
pub mod decode;
pub mod defaults;
pub mod field;
pub mod fields;
pub mod gates;
pub mod go;
pub mod gvk;
pub mod intstr;
pub mod labels;
pub mod names;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod path;
pub mod pod_annotations;
pub mod pod_resources;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod status;
pub mod time;
pub mod validate;
pub mod warnings;

pub use field::{ErrorList, ErrorType, FieldError, Path};
pub use fields::FieldSelector;
pub use gvk::{GroupVersion, Gvk, Gvr};
pub use intstr::IntOrString;
pub use labels::LabelSelector;
pub use object::{Object, ObjectError, OwnerRef};
pub use quantity::Quantity;
pub use status::{Cause, Details, Reason, StatusError};

/// The name of a value's JSON type, as messages write it.
pub fn json_type(value: &serde_json::Value) -> &'static str {
    use serde_json::Value;
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
