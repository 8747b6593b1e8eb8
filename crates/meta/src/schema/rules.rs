//! What a custom resource's schema says of values, beyond their structure.

use std::sync::Arc;

use serde_json::Value;

use super::{Pattern, Schema};

/// What a node of a custom resource's schema says beyond its shape.
#[derive(Debug, Default)]
pub struct Rules {
    /// The value an absent member takes.
    pub default: Option<Value>,
    /// The types of JSON that may stand here, as messages write them: `string`, or `integer,string`; empty for any.
    pub types: &'static str,
    /// Whether the object here is one of Kubernetes', with apiVersion, kind and metadata.
    pub embedded: bool,
    /// What the schema says of the `metadata` of an object of Kubernetes, whose structure it cannot change.
    pub metadata: Option<Arc<Schema>>,
    /// Whether elements of the list, or the object, are told apart by parts, so that a new value can be compared with the old one part
    /// by part.
    pub granular: bool,
    /// Conditions on the value.
    pub values: Option<Box<Values>>,
}

/// Conditions on a value, as in JSON schema.
#[derive(Debug, Default)]
pub struct Values {
    /// The types that may stand here, inside a junctor; empty for any.
    pub types: &'static str,
    /// Name of a format of strings that is checked.
    pub format: Option<String>,
    /// Largest number.
    pub maximum: Option<f64>,
    /// Whether the largest number itself is too large.
    pub exclusive_maximum: bool,
    /// Smallest number.
    pub minimum: Option<f64>,
    /// Whether the smallest number itself is too small.
    pub exclusive_minimum: bool,
    /// The number is a multiple of it.
    pub multiple_of: Option<f64>,
    /// Most characters of a string.
    pub max_length: Option<u64>,
    /// Fewest characters of a string.
    pub min_length: Option<u64>,
    /// What a string must match.
    pub pattern: Option<Pattern>,
    /// Most elements of a list.
    pub max_items: Option<u64>,
    /// Fewest elements of a list.
    pub min_items: Option<u64>,
    /// Most members of an object.
    pub max_properties: Option<u64>,
    /// Fewest members of an object.
    pub min_properties: Option<u64>,
    /// Members that an object must have.
    pub required: Vec<String>,
    /// The values that may stand here; empty for any.
    pub one_of_values: Vec<Value>,
    /// All must hold.
    pub all_of: Vec<Values>,
    /// At least one must hold.
    pub any_of: Vec<Values>,
    /// Exactly one must hold.
    pub one_of: Vec<Values>,
    /// Must not hold.
    pub not: Option<Box<Values>>,
    /// Conditions on members, inside a junctor.
    pub properties: Vec<(String, Values)>,
    /// Conditions on elements, inside a junctor.
    pub items: Option<Box<Values>>,
}
