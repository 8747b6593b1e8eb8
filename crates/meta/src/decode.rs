//! Decoding of request bodies: syntax, duplicate and unknown fields, types, and the normal form in which objects are kept.
//!
//! The normal form is what a round trip through upstream's Go types gives: members the schema does not know are dropped, `null`
//! means absent, zero values of members with `omitempty` are dropped, those of members without it are written, amounts and times are
//! in canonical form.

mod conform;
mod json;
mod order;
mod yaml;

use serde_json::Value;
use thiserror::Error;

use crate::gvk::Gvk;
use crate::protobuf::ProtobufError;
use crate::schema::Schema;
use crate::{Object, StatusError};

pub use conform::zero_value;

/// Duplicate and unknown fields that are reported for one body; further ones are dropped in silence, as upstream does.
const MAX_ISSUES: usize = 100;

/// What to do about unknown and duplicate fields: the `fieldValidation` query parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them in silence.
    Ignore,
    /// Drop them and send a warning for each.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; `None` for a value that does not exist.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// Why a body is no object of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes are not JSON.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Syntax(String),
    /// The bytes are not YAML.
    #[error("error converting YAML to JSON: {0}")]
    Yaml(String),
    /// The root is something else than an object.
    #[error("json: cannot unmarshal {0} into Go value of type struct")]
    Root(&'static str),
    /// A member has another type than its field.
    #[error("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}")]
    Type {
        /// What was found, in Go's words.
        found: String,
        /// Name of the struct that has the field.
        owner: String,
        /// JSON names from the root, without indices.
        path: String,
        /// Go's name of the wanted type.
        wanted: String,
    },
    /// A value has the right type but the wrong shape: an amount, a time, base64.
    #[error("{0}")]
    Value(String),
    /// The bytes are no protobuf message.
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
    /// There are unknown or duplicate fields and validation is strict.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

impl DecodeError {
    /// The status of a request whose body should be of the kind `want`; `found` is what the body says of itself.
    pub fn status(&self, want: &Gvk, found: &Gvk, body: &[u8]) -> StatusError {
        if matches!(self, Self::Syntax(_) | Self::Yaml(_) | Self::Protobuf(_)) {
            return StatusError::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): {self} ({})",
                want.kind,
                summary(body)
            ));
        }
        // What a body leaves open is taken as expected.
        let or = |found: &str, want: &str| if found.is_empty() { want.to_owned() } else { found.to_owned() };
        StatusError::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {self}",
            or(&found.kind, &want.kind),
            or(&found.version, &want.version),
            want.kind
        ))
    }
}

/// The beginning of a body that is no object.
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let head = body.get(..SHOWN.min(body.len())).unwrap_or_default();
    let more = if body.len() > SHOWN { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => {
            let digits: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digits}{more}")
        }
    }
}

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object in normal form.
    pub object: Object,
    /// A warning for each unknown or duplicate field.
    pub warnings: Vec<String>,
}

/// Decodes a JSON body. Nesting beyond 127 levels is a syntax error; the caller bounds the number of bytes.
///
/// # Errors
/// When the body is not JSON, does not fit the schema, or has unknown or duplicate fields and `mode` is strict.
pub fn decode(bytes: &[u8], schema: &Schema, mode: FieldValidation) -> Result<Decoded, DecodeError> {
    let mut issues = Vec::new();
    let mut value = json::parse(bytes, &mut issues)?;
    check(&mut value, schema, &mut issues)?;
    // Upstream reads a custom resource without its schema first, and so finds what is given twice before what is unknown.
    if mode != FieldValidation::Ignore && schema.rules.is_none() {
        order::in_document_order(bytes, &mut issues);
    }
    finish(value, mode, issues)
}

/// Decodes a YAML body of one document.
///
/// # Errors
/// As [`decode`].
pub fn decode_yaml(bytes: &[u8], schema: &Schema, mode: FieldValidation) -> Result<Decoded, DecodeError> {
    let (mut value, duplicates) = yaml::parse(bytes)?;
    let mut issues = duplicates.into_iter().collect();
    check(&mut value, schema, &mut issues)?;
    finish(value, mode, issues)
}

/// Brings an object that was built or patched here into normal form; gives the warnings.
///
/// # Errors
/// When it does not fit the schema, or has unknown fields and `mode` is strict.
pub fn conform(object: &mut Object, schema: &Schema, mode: FieldValidation) -> Result<Vec<String>, DecodeError> {
    let mut value = Value::Object(std::mem::take(object.map_mut()));
    let mut issues = Vec::new();
    check(&mut value, schema, &mut issues)?;
    let decoded = finish(value, mode, issues)?;
    *object = decoded.object;
    Ok(decoded.warnings)
}

/// Parses JSON without a schema, as upstream reads unstructured data. Duplicate members are given as warnings.
///
/// # Errors
/// When the bytes are not JSON or the root is not an object.
pub fn parse(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut warnings = Vec::new();
    let value = json::parse(bytes, &mut warnings)?;
    let found = go_type(&value);
    let object = Object::try_from(value).map_err(|_| DecodeError::Root(found))?;
    Ok(Decoded { object, warnings })
}

/// Parses one JSON value of any type, with a warning for each duplicate member.
///
/// # Errors
/// When the bytes are not JSON.
pub fn parse_value(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let mut warnings = Vec::new();
    let value = json::parse(bytes, &mut warnings)?;
    Ok((value, warnings))
}

/// Parses a YAML document without a schema: the configuration of a server-side apply. JSON is YAML too. Duplicate members
/// are one warning of several lines, in the words of upstream's YAML library.
///
/// # Errors
/// When the bytes are not YAML, or the root is not an object.
pub fn parse_yaml(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let (value, duplicates) = yaml::parse(bytes)?;
    let found = go_type(&value);
    let object = Object::try_from(value).map_err(|_| DecodeError::Root(found))?;
    Ok(Decoded { object, warnings: duplicates.into_iter().collect() })
}

/// The warnings of which a YAML library's report consists; other texts stand for themselves.
pub fn lines_of_report(report: &str) -> Vec<String> {
    match report.strip_prefix(yaml::REPORT) {
        Some(lines) => lines.lines().map(|line| line.trim().to_owned()).collect(),
        None => vec![report.to_owned()],
    }
}

/// Members of a value that a node does not know, each as a warning says it.
pub(crate) fn unknown_fields(value: &Value, schema: &Schema) -> Vec<String> {
    let mut issues = Vec::new();
    // What is of another type than the node has no members to look at.
    let _ = conform::conform(&mut value.clone(), schema, &mut issues);
    issues
}

/// Brings a body's tree into normal form and names what the schema does not know.
fn check(value: &mut Value, schema: &Schema, issues: &mut Vec<String>) -> Result<(), DecodeError> {
    if !value.is_object() {
        return Err(DecodeError::Root(go_type(value)));
    }
    conform::conform(value, schema, issues)?;
    issues.truncate(MAX_ISSUES);
    Ok(())
}

fn finish(value: Value, mode: FieldValidation, mut issues: Vec<String>) -> Result<Decoded, DecodeError> {
    match mode {
        FieldValidation::Ignore => issues.clear(),
        FieldValidation::Strict if !issues.is_empty() => return Err(DecodeError::Strict(issues)),
        FieldValidation::Warn | FieldValidation::Strict => {
            issues = issues.iter().flat_map(|issue| lines_of_report(issue)).collect();
        }
    }
    let found = go_type(&value);
    let object = Object::try_from(value).map_err(|_| DecodeError::Root(found))?;
    Ok(Decoded { object, warnings: issues })
}

/// What Go's JSON calls a value's type.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::lookup;

    fn run(group: &str, kind: &str, text: &str, mode: FieldValidation) -> Result<Decoded, DecodeError> {
        decode(text.as_bytes(), lookup(&Gvk::new(group, "v1", kind)).unwrap(), mode)
    }

    #[test]
    fn unknown_and_duplicate_fields_are_named() {
        let body = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","name":"b","foo":1},
            "spec":{"bar":1,"template":{"spec":{"containers":[{"name":"c","imagee":"x"}]}}}}"#;
        let decoded = run("apps", "Deployment", body, FieldValidation::Warn).unwrap();
        assert_eq!(
            decoded.warnings,
            [
                "duplicate field \"metadata.name\"",
                "unknown field \"metadata.foo\"",
                "unknown field \"spec.bar\"",
                "unknown field \"spec.template.spec.containers[0].imagee\""
            ]
        );
        assert_eq!(decoded.object.name(), "b");
        assert_eq!(decoded.object.get(&["spec", "bar"]), None);
        let error = run("apps", "Deployment", body, FieldValidation::Strict).unwrap_err();
        let gvk = Gvk::new("apps", "v1", "Deployment");
        assert!(error.status(&gvk, &gvk, b"").message.starts_with(
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: duplicate field"
        ));
        assert!(run("apps", "Deployment", body, FieldValidation::Ignore).unwrap().warnings.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_in_the_order_of_the_document() {
        let body = r#"{"spec":{"zone":1,"replicas":2,"replicas":3,"replicas":4,"a":1,"template":{"spec":{"containers":[
            {"name":"c","odd":1,"name":"d"}]}}},"kind":"Deployment","apiVersion":"apps/v1","early":1}"#;
        let Err(DecodeError::Strict(issues)) = run("apps", "Deployment", body, FieldValidation::Strict) else {
            panic!()
        };
        assert_eq!(
            issues,
            [
                "unknown field \"spec.zone\"",
                "duplicate field \"spec.replicas\"",
                "unknown field \"spec.a\"",
                "unknown field \"spec.template.spec.containers[0].odd\"",
                "duplicate field \"spec.template.spec.containers[0].name\"",
                "unknown field \"early\""
            ]
        );
    }

    #[test]
    fn wrong_types_are_refused_in_upstreams_words() {
        let message = |body: &str| run("apps", "Deployment", body, FieldValidation::Warn).unwrap_err().to_string();
        assert_eq!(
            message(r#"{"spec":{"replicas":"3"}}"#),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(
            message(r#"{"spec":{"replicas":1.5}}"#),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(
            message(r#"{"spec":{"template":{"spec":{"containers":[{"name":1}]}}}}"#),
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.name of type string"
        );
        assert_eq!(
            message(r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container"
        );
        assert!(message("{").starts_with("couldn't get version/kind; json parse error: "));
        assert_eq!(message("[]"), "json: cannot unmarshal array into Go value of type struct");
        let deep = format!("{}{}", "{\"a\":".repeat(100_000), "1");
        assert!(matches!(run("", "Pod", &deep, FieldValidation::Warn), Err(DecodeError::Syntax(_))));
    }

    #[test]
    fn the_normal_form_is_that_of_go() {
        let body = r#"{"kind":"Pod","metadata":{"name":"a","labels":{},"creationTimestamp":null},
            "spec":{"hostNetwork":false,"terminationGracePeriodSeconds":0,"nodeName":"",
            "containers":[{"name":"c","image":"x","resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}}}]}}"#;
        let object = run("", "Pod", body, FieldValidation::Strict).unwrap().object;
        assert_eq!(
            object.to_value(),
            json!({"kind": "Pod", "metadata": {"name": "a"},
                "spec": {"terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "x", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]},
                "status": {}})
        );
        let object = run("", "Service", r#"{"spec":{"ports":[{"port":80}]}}"#, FieldValidation::Strict).unwrap().object;
        assert_eq!(object.get(&["status"]), Some(&json!({"loadBalancer": {}})));
        assert_eq!(object.pointer("/spec/ports/0"), Some(&json!({"port": 80, "targetPort": 0})));
        let object = run("apps", "ReplicaSet", "{}", FieldValidation::Strict).unwrap().object;
        assert_eq!(object.get(&["status"]), Some(&json!({"replicas": 0})));
    }

    #[test]
    fn malformed_values_are_refused() {
        for (kind, body) in [
            ("Secret", r#"{"data":{"a":"!"}}"#),
            ("Pod", r#"{"metadata":{"creationTimestamp":"yesterday"}}"#),
            ("Pod", r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"1x"}}}]}}"#),
        ] {
            assert!(matches!(run("", kind, body, FieldValidation::Warn), Err(DecodeError::Value(_))), "{body}");
        }
    }

    #[test]
    fn duplicates_in_yaml_are_named_by_line() {
        let schema = lookup(&Gvk::new("", "v1", "ConfigMap")).unwrap();
        let body = b"kind: ConfigMap\ndata:\n  a: b\n  a: c\nx: 1\nkind: ConfigMap\n";
        let warned = decode_yaml(body, schema, FieldValidation::Warn).unwrap();
        assert_eq!(warned.object.get(&["data", "a"]), Some(&json!("c")), "the last one counts");
        assert_eq!(
            warned.warnings,
            ["line 4: key \"a\" already set in map", "line 6: key \"kind\" already set in map", "unknown field \"x\""]
        );
        assert_eq!(
            decode_yaml(body, schema, FieldValidation::Strict).unwrap_err().to_string(),
            "strict decoding error: yaml: unmarshal errors:\n  line 4: key \"a\" already set in map\n  line 6: key \"kind\" already set in map, unknown field \"x\""
        );
        assert!(decode_yaml(body, schema, FieldValidation::Ignore).unwrap().warnings.is_empty());
    }

    #[test]
    fn what_is_no_object_is_shown() {
        let gvk = Gvk::new("", "v1", "ConfigMap");
        let message = |body: &[u8]| {
            let error = decode(body, lookup(&gvk).unwrap(), FieldValidation::Warn).unwrap_err();
            error.status(&gvk, &Gvk::default(), body).message
        };
        assert!(message(b"").ends_with(" (<empty>)"));
        assert!(message(b"\x01\x02").ends_with(" (0102)"));
        assert!(message(&[&b"{"[..], &[b'x'; 40]].concat()).ends_with(&format!(" ({{{} ...)", "x".repeat(29))));
        assert!(
            message(b"{\"data\": 1}")
                .starts_with("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json:")
        );
    }

    #[test]
    fn yaml_bodies_decode() {
        let schema = lookup(&Gvk::new("", "v1", "ConfigMap")).unwrap();
        let decoded = decode_yaml(b"kind: ConfigMap\ndata:\n  a: b\nx: 1\n", schema, FieldValidation::Warn).unwrap();
        assert_eq!(decoded.object.get(&["data", "a"]), Some(&json!("b")));
        assert_eq!(decoded.warnings, ["unknown field \"x\""]);
        let object = parse_yaml(b"data:\n  1: x\n  true: !tag y\n").unwrap().object;
        assert_eq!(object.get(&["data"]), Some(&json!({"1": "x", "true": "y"})));
        assert!(matches!(parse_yaml(b"- a\n"), Err(DecodeError::Root("array"))));
        let bomb = format!(
            "a0: &a0 [x]\n{}",
            (1..40).map(|i| format!("a{i}: &a{i} [*a{0}, *a{0}, *a{0}]\n", i - 1)).collect::<String>()
        );
        assert!(matches!(parse_yaml(bomb.as_bytes()), Err(DecodeError::Yaml(_))));
    }
}
