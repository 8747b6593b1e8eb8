//! The field table: the structure of every built-in type, and the form that custom resources' schemas compile to.
//!
//! A [`Schema`] is a node: a struct, list, map or leaf. The nodes of built-in types stand in one generated `'static` table and refer to
//! each other by position; those of custom resources own their parts behind `Arc` and may refer to the table (for metadata). Code that
//! walks a schema sees only `&Schema` and never knows which it is.

mod build;
mod custom;
mod descriptions;
mod pattern;
mod rules;
#[rustfmt::skip]
mod table;

use std::borrow::Cow;
use std::sync::Arc;

use crate::gvk::Gvk;

pub(crate) use custom::compile_node;
pub use custom::{Definition, compile};
pub use descriptions::Descriptions;
pub use pattern::Pattern;
pub use rules::{Rules, Values};

/// Definition name of the schemas inside CustomResourceDefinitions.
pub const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// A node of a structural schema.
#[derive(Debug)]
pub struct Schema {
    /// OpenAPI definition name such as `io.k8s.api.core.v1.PodSpec`; empty for nodes without a name of their own.
    pub name: Cow<'static, str>,
    /// What stands at this place.
    pub shape: Shape,
    /// Whether `null` is a value here (custom resources); elsewhere it means absent.
    pub nullable: bool,
    /// Value rules of a custom resource's schema; built-in types have validators instead.
    pub rules: Option<Box<Rules>>,
}

/// What stands at a place of a schema.
#[derive(Debug)]
pub enum Shape {
    /// A JSON object with known members.
    Struct {
        /// The members, in order of their names.
        fields: Fields,
        /// Whether server-side apply owns it as a whole.
        atomic: bool,
        /// Whether unknown members are kept.
        preserve: bool,
    },
    /// A JSON object with any member names.
    Map {
        /// Every member's value.
        value: Ref,
        /// Whether server-side apply owns it as a whole.
        atomic: bool,
    },
    /// A JSON array.
    List {
        /// Every element.
        item: Ref,
        /// How elements are told apart by server-side apply.
        list_type: ListType,
        /// Comma-separated key members of a [`ListType::Map`].
        keys: Cow<'static, str>,
        /// Whether protobuf wraps the list in a message of its own.
        message: bool,
    },
    /// A value without parts that the schema knows.
    Leaf {
        /// Its type.
        leaf: Leaf,
        /// Comma-separated values of a built-in enumeration; empty when any value goes.
        values: Cow<'static, str>,
    },
}

/// How the elements of a list are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// They are not: the list has one owner.
    Atomic,
    /// By value.
    Set,
    /// By key members.
    Map,
}

/// Types of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// `true` or `false`.
    Boolean,
    /// Base64 text.
    Bytes,
    /// A number.
    Double,
    /// A set of field paths: any JSON object.
    FieldsV1,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A 32-bit integer or a string.
    IntOrString,
    /// Any JSON value.
    Json,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// An amount such as `500m`.
    Quantity,
    /// Any JSON object.
    RawExtension,
    /// A schema or a list of schemas.
    SchemaOrArray,
    /// A schema or a boolean.
    SchemaOrBool,
    /// A schema or a list of strings.
    SchemaOrStringArray,
    /// Text.
    String,
    /// RFC 3339 in seconds.
    Time,
}

/// A member of a struct.
#[derive(Debug)]
pub struct Field {
    /// JSON name.
    pub name: Cow<'static, str>,
    /// Its value.
    pub schema: Ref,
    /// Whether OpenAPI lists it as required.
    pub required: bool,
    /// Whether Go holds it by pointer, so that a zero value differs from absence.
    pub pointer: bool,
    /// Whether Go writes it although it is zero.
    pub always: bool,
    /// JSON of the value an absent member takes.
    pub default: Option<Cow<'static, str>>,
    /// Member that tells elements apart in a strategic merge; empty for none.
    pub merge_key: Cow<'static, str>,
    /// Comma-separated strategies of a strategic merge: `merge`, `replace`, `retainKeys`.
    pub strategy: Cow<'static, str>,
    /// Protobuf field number; 0 for members that protobuf does not carry.
    pub number: u8,
    /// Numbers of the messages that protobuf nests around an inlined member: a byte each, outermost lowest.
    pub via: u32,
}

/// A reference from a node to another.
#[derive(Clone, Debug)]
pub enum Ref {
    /// A position in the built-in table.
    Table(u16),
    /// A node of a custom resource's schema.
    Owned(Arc<Schema>),
    /// The root of a custom resource's schema, compiled when it is first needed.
    Defined(Arc<Definition>),
}

impl std::ops::Deref for Ref {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        self.get()
    }
}

impl Ref {
    /// As [`Schema::is_named`], without compiling anything.
    pub fn is_named(&self) -> bool {
        match self {
            Self::Table(_) | Self::Owned(_) => self.get().is_named(),
            Self::Defined(_) => false,
        }
    }

    /// The JSON schema that a custom resource's type was written as; `None` for all other types.
    pub fn source(&self) -> Option<serde_json::Value> {
        match self {
            Self::Defined(definition) => definition.source(),
            Self::Table(_) | Self::Owned(_) => None,
        }
    }

    /// The node that is meant.
    pub fn get(&self) -> &Schema {
        match self {
            // Positions are generated together with the table.
            Self::Table(position) => &table::NODES[usize::from(*position)],
            Self::Owned(schema) => schema,
            Self::Defined(definition) => definition.schema(),
        }
    }
}

/// The members of a struct in order of their names.
#[derive(Debug)]
pub enum Fields {
    /// A range of the built-in table.
    Table {
        /// First field.
        start: u16,
        /// One past the last field.
        end: u16,
    },
    /// Fields of a custom resource's schema.
    Owned(Vec<Field>),
}

impl Fields {
    /// The members as a slice.
    pub fn as_slice(&self) -> &[Field] {
        match self {
            Self::Table { start, end } => &table::FIELDS[usize::from(*start)..usize::from(*end)],
            Self::Owned(fields) => fields,
        }
    }
}

impl Field {
    /// The node of the member's value.
    pub fn schema(&self) -> &Schema {
        self.schema.get()
    }

    /// Whether a strategic merge of this member follows `strategy`.
    pub fn has_strategy(&self, strategy: &str) -> bool {
        self.strategy.split(',').any(|s| s == strategy)
    }
}

impl Schema {
    /// Whether the type is one of the table: only these say how a strategic merge treats their lists, and only these have numbers in
    /// protobuf.
    pub fn is_named(&self) -> bool {
        !self.name.is_empty()
    }

    /// The members of a struct; empty for other shapes.
    pub fn fields(&self) -> &[Field] {
        match &self.shape {
            Shape::Struct { fields, .. } => fields.as_slice(),
            _ => &[],
        }
    }

    /// A member of a struct by its JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let fields = self.fields();
        fields.binary_search_by(|f| f.name.as_ref().cmp(name)).ok().and_then(|i| fields.get(i))
    }

    /// The node of a member of a struct or map, by its JSON name.
    pub fn member(&self, name: &str) -> Option<&Schema> {
        match &self.shape {
            Shape::Struct { .. } => self.field(name).map(Field::schema),
            Shape::Map { value, .. } => Some(value.get()),
            _ => None,
        }
    }

    /// The node of a list's elements.
    pub fn item(&self) -> Option<&Schema> {
        match &self.shape {
            Shape::List { item, .. } => Some(item.get()),
            _ => None,
        }
    }

    /// The node at a path of member names; `[]` steps into a list's elements.
    pub fn at(&self, path: &[&str]) -> Option<&Schema> {
        path.iter().try_fold(self, |node, step| if *step == "[]" { node.item() } else { node.member(step) })
    }

    /// The key members of a map-like list, in declared order.
    pub fn list_keys(&self) -> impl Iterator<Item = &str> {
        let keys = match &self.shape {
            Shape::List { keys, .. } => keys.as_ref(),
            _ => "",
        };
        keys.split(',').filter(|k| !k.is_empty())
    }
}

/// The type of a built-in kind; `None` for kinds that are not built in.
///
/// Kinds that belong to every group (`DeleteOptions`, `Status`, `Table`, …) are found under `meta.k8s.io/v1`.
pub fn lookup(gvk: &Gvk) -> Option<&'static Schema> {
    position(gvk).map(|position| &table::NODES[usize::from(position)])
}

/// As [`lookup`], in the form in which a node refers to another: what a row of the resource table keeps.
pub fn reference(gvk: &Gvk) -> Option<Ref> {
    position(gvk).map(Ref::Table)
}

/// A type that is an object with members of any name and value.
pub fn any_object() -> Ref {
    let shape = Shape::Struct { fields: Fields::Owned(Vec::new()), atomic: false, preserve: true };
    Ref::Owned(Arc::new(Schema { name: Cow::Borrowed(""), shape, nullable: false, rules: None }))
}

fn position(gvk: &Gvk) -> Option<u16> {
    let found = table::KINDS.binary_search_by(|(group, version, kind, _)| {
        (*group, *version, *kind).cmp(&(&*gvk.group, &*gvk.version, &*gvk.kind))
    });
    found.ok().map(|i| table::KINDS[i].3)
}

/// A built-in type by its OpenAPI definition name.
pub fn definition(name: &str) -> Option<&'static Schema> {
    table::NODES.iter().find(|n| n.name == name)
}

/// A reference to `ObjectMeta`, which custom resources' schemas contain.
fn object_meta() -> Ref {
    const NAME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let position = table::NODES.iter().position(|n| n.name == NAME).unwrap_or_default();
    Ref::Table(u16::try_from(position).unwrap_or_default())
}

/// Every built-in kind with its type, in order of group, version and kind.
pub fn kinds() -> impl Iterator<Item = (Gvk, &'static Schema)> {
    table::KINDS.iter().map(|(group, version, kind, position)| {
        (Gvk::new(*group, *version, *kind), &table::NODES[usize::from(*position)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> &'static Schema {
        lookup(&Gvk::new("", "v1", "Pod")).unwrap()
    }

    #[test]
    fn facts_of_the_pod_are_there() {
        let containers = pod().at(&["spec"]).unwrap().field("containers").unwrap();
        assert_eq!((containers.merge_key.as_ref(), containers.strategy.as_ref()), ("name", "merge"));
        assert!(containers.required && containers.always);
        let ports = containers.schema().item().unwrap().field("ports").unwrap();
        assert_eq!(ports.merge_key, "containerPort");
        assert_eq!(ports.schema().list_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
        let protocol = ports.schema().item().unwrap().field("protocol").unwrap();
        assert_eq!((protocol.default.as_deref(), protocol.number), (Some("\"TCP\""), 4));
        let volumes = pod().at(&["spec"]).unwrap().field("volumes").unwrap();
        assert!(volumes.has_strategy("merge") && volumes.has_strategy("retainKeys"));
        let empty_dir = volumes.schema().item().unwrap().field("emptyDir").unwrap();
        assert_eq!((empty_dir.via, empty_dir.number), (2, 2));
    }

    #[test]
    fn every_row_is_sound() {
        for node in &table::NODES {
            for pair in node.fields().windows(2) {
                assert!(pair[0].name < pair[1].name, "{}: {}", node.name, pair[1].name);
            }
            for field in node.fields() {
                let _ = field.schema();
                if let Some(default) = &field.default {
                    assert!(serde_json::from_str::<serde_json::Value>(default).is_ok(), "{default}");
                }
                if let Shape::List { item, list_type: ListType::Map, .. } = &field.schema().shape {
                    assert!(field.schema().list_keys().all(|k| item.get().field(k).is_some()), "{}", field.name);
                    assert!(field.schema().list_keys().next().is_some(), "{}.{}", node.name, field.name);
                }
            }
        }
        assert!(table::KINDS.windows(2).all(|p| (p[0].0, p[0].1, p[0].2) < (p[1].0, p[1].1, p[1].2)));
    }

    #[test]
    fn the_main_kinds_are_known() {
        for (group, kind) in [
            ("", "Service"),
            ("", "ConfigMap"),
            ("apps", "Deployment"),
            ("batch", "CronJob"),
            ("autoscaling", "Scale"),
            ("rbac.authorization.k8s.io", "ClusterRole"),
            ("discovery.k8s.io", "EndpointSlice"),
            ("policy", "Eviction"),
            ("apiextensions.k8s.io", "CustomResourceDefinition"),
            ("meta.k8s.io", "DeleteOptions"),
            ("coordination.k8s.io", "Lease"),
            ("storage.k8s.io", "StorageClass"),
            ("authentication.k8s.io", "TokenRequest"),
        ] {
            let schema = lookup(&Gvk::new(group, "v1", kind)).unwrap_or_else(|| panic!("{kind}"));
            assert!(schema.field("apiVersion").is_some() && schema.field("kind").is_some(), "{kind}");
        }
        assert!(lookup(&Gvk::new("example.com", "v1", "Pod")).is_none());
    }
}
