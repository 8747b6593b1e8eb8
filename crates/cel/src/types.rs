//! Types, and how an argument's type is held against a parameter's.

use std::fmt;
use std::sync::Arc;

use crate::decl::{DeclKind, DeclType};

/// A type of the checker.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Any type; checked when evaluated.
    Dyn,
    /// Of an expression that is already reported.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    /// The type of a type; `None` when of which is not known.
    Type(Option<Arc<Type>>),
    /// A variable of the checker, or a parameter of a signature.
    Param(u32),
    /// A type of a library, such as `net.IP`.
    Named(&'static str),
    /// A type with fields.
    Object(ObjectType),
}

/// A type with fields.
#[derive(Clone, Debug)]
pub enum ObjectType {
    /// From a schema.
    Decl(Arc<DeclType>),
    /// Declared by the host.
    Declared(Arc<DeclaredObject>),
    /// `Object`, `Object.spec`, …: any field, for apply configurations.
    Dynamic(Arc<str>),
}

/// An object type that the host declares.
#[derive(Debug)]
pub struct DeclaredObject {
    /// Its name in messages.
    pub name: String,
    /// Its fields.
    pub fields: Vec<(String, Type)>,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (ObjectType::Decl(a), ObjectType::Decl(b)) => Arc::ptr_eq(a, b),
            (ObjectType::Declared(a), ObjectType::Declared(b)) => a.name == b.name,
            (ObjectType::Dynamic(a), ObjectType::Dynamic(b)) => a == b,
            _ => false,
        }
    }
}

impl ObjectType {
    /// The name in messages.
    pub fn name(&self) -> &str {
        match self {
            ObjectType::Decl(decl) => match &decl.kind {
                DeclKind::Object { name, .. } => name,
                _ => "object",
            },
            ObjectType::Declared(object) => &object.name,
            ObjectType::Dynamic(name) => name,
        }
    }

    /// The type of a field.
    pub fn field(&self, name: &str) -> Option<Type> {
        match self {
            ObjectType::Decl(decl) => decl.field(name).map(|f| f.decl.cel_type()),
            ObjectType::Declared(object) => object.fields.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone()),
            ObjectType::Dynamic(_) => Some(Type::Dyn),
        }
    }
}

impl Type {
    /// `list(item)`.
    pub fn list(item: Type) -> Type {
        Type::List(Arc::new(item))
    }

    /// `map(key, value)`.
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new((key, value)))
    }

    /// `optional_type(inner)`.
    pub fn optional(inner: Type) -> Type {
        Type::Optional(Arc::new(inner))
    }

    /// An object type that the host declares.
    pub fn declared(name: &str, fields: Vec<(String, Type)>) -> Type {
        Type::Object(ObjectType::Declared(Arc::new(DeclaredObject { name: name.to_owned(), fields })))
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// The name that `type(x)` of a value of this type is written with.
    pub(crate) fn runtime_name(&self) -> String {
        match self {
            Type::Null => "null_type".into(),
            Type::Timestamp => "google.protobuf.Timestamp".into(),
            Type::Duration => "google.protobuf.Duration".into(),
            Type::List(_) => "list".into(),
            Type::Map(_) => "map".into(),
            Type::Optional(_) => "optional_type".into(),
            Type::Type(_) => "type".into(),
            other => other.to_string(),
        }
    }

    /// The type that a name stands for, such as `int` or `net.IP`.
    pub(crate) fn by_name(name: &str) -> Option<Type> {
        Some(match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "dyn" => Type::Dyn,
            "google.protobuf.Duration" => Type::Duration,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "int" => Type::Int,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "optional_type" => Type::optional(Type::Dyn),
            "string" => Type::String,
            "type" => Type::Type(None),
            "uint" => Type::Uint,
            other => Type::Named(NAMED.iter().find(|n| **n == other)?),
        })
    }
}

/// The types of the libraries.
pub(crate) const NAMED: &[&str] = &[
    "kubernetes.NamedFormat",
    "kubernetes.Quantity",
    "kubernetes.Semver",
    "kubernetes.URL",
    "kubernetes.authorization.Authorizer",
    "kubernetes.authorization.Decision",
    "kubernetes.authorization.GroupCheck",
    "kubernetes.authorization.PathCheck",
    "kubernetes.authorization.ResourceCheck",
    "net.CIDR",
    "net.IP",
];

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Error => f.write_str("!error!"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(item) => write!(f, "list({item})"),
            Type::Map(entry) => write!(f, "map({}, {})", entry.0, entry.1),
            Type::Optional(inner) => write!(f, "optional_type({inner})"),
            Type::Type(None) => f.write_str("type"),
            Type::Type(Some(inner)) => write!(f, "type({inner})"),
            Type::Param(n) => write!(f, "_var{n}"),
            Type::Named(name) => f.write_str(name),
            Type::Object(object) => f.write_str(object.name()),
        }
    }
}

/// What the checker has found its variables to stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Substitution {
    bound: Vec<Option<Type>>,
}

impl Substitution {
    /// A variable of its own.
    pub(crate) fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Param(u32::try_from(self.bound.len() - 1).unwrap_or(u32::MAX))
    }

    fn get(&self, n: u32) -> Option<&Type> {
        self.bound.get(n as usize).and_then(Option::as_ref)
    }

    /// The type with its variables replaced; those that stand for nothing stay, or become `dyn` when `settle`.
    pub(crate) fn apply(&self, t: &Type, settle: bool) -> Type {
        match t {
            Type::Param(n) => match self.get(*n) {
                Some(bound) => self.apply(bound, settle),
                None if settle => Type::Dyn,
                None => t.clone(),
            },
            Type::List(item) => Type::list(self.apply(item, settle)),
            Type::Map(entry) => Type::map(self.apply(&entry.0, settle), self.apply(&entry.1, settle)),
            Type::Optional(inner) => Type::optional(self.apply(inner, settle)),
            Type::Type(Some(inner)) => Type::Type(Some(Arc::new(self.apply(inner, settle)))),
            other => other.clone(),
        }
    }

    /// Whether a value of type `from` may stand where `to` is wanted; binds variables when it may, and nothing otherwise.
    pub(crate) fn assign(&mut self, to: &[Type], from: &[Type]) -> bool {
        let saved = self.bound.clone();
        let fits = to.len() == from.len() && to.iter().zip(from).all(|(t, f)| self.unify(t, f));
        if !fits {
            self.bound = saved;
        }
        fits
    }

    /// What a variable that stands for another variable stands for.
    fn resolve(&self, t: &Type) -> Type {
        let mut t = t.clone();
        while let Type::Param(n) = t
            && let Some(next @ Type::Param(_)) = self.get(n)
        {
            t = next.clone();
        }
        t
    }

    fn unify(&mut self, to: &Type, from: &Type) -> bool {
        let (to, from) = (&self.resolve(to), &self.resolve(from));
        match (to, from) {
            (Type::Param(n), Type::Param(m)) if n == m => true,
            (_, Type::Param(n)) => {
                if let Some(bound) = self.get(*n).cloned() {
                    return self.unify(to, &bound) && self.widen(*n, to, &bound);
                }
                self.bind(*n, to)
            }
            (Type::Param(n), _) => {
                if let Some(bound) = self.get(*n).cloned() {
                    return self.unify(&bound, from) && self.widen(*n, &bound, from);
                }
                self.bind(*n, from)
            }
            (a, b) if a.is_dyn_or_error() || b.is_dyn_or_error() => true,
            // Null goes where an object, a time or a library's value is wanted.
            (Type::Null, Type::Object(_) | Type::Named(_) | Type::Optional(_) | Type::Timestamp | Type::Duration)
            | (Type::Object(_) | Type::Named(_) | Type::Optional(_) | Type::Timestamp | Type::Duration, Type::Null) => {
                true
            }
            (Type::List(a), Type::List(b)) => self.unify(a, b),
            (Type::Map(a), Type::Map(b)) => self.unify(&a.0, &b.0) && self.unify(&a.1, &b.1),
            (Type::Optional(a), Type::Optional(b)) => self.unify(a, b),
            (Type::Type(_), Type::Type(_)) => true,
            (a, b) => a == b,
        }
    }

    fn bind(&mut self, n: u32, t: &Type) -> bool {
        if self.occurs(n, t) {
            return false;
        }
        if let Some(slot) = self.bound.get_mut(n as usize) {
            *slot = Some(t.clone());
        }
        true
    }

    /// After `a` and `b` were found to fit each other: the variable stands for the more general.
    fn widen(&mut self, n: u32, a: &Type, b: &Type) -> bool {
        let general = if self.is_more_general(b, a) { b.clone() } else { a.clone() };
        self.bind(n, &general)
    }

    fn occurs(&self, n: u32, t: &Type) -> bool {
        match t {
            Type::Param(m) => *m == n || self.get(*m).is_some_and(|bound| self.occurs(n, bound)),
            Type::List(item) | Type::Optional(item) | Type::Type(Some(item)) => self.occurs(n, item),
            Type::Map(entry) => self.occurs(n, &entry.0) || self.occurs(n, &entry.1),
            _ => false,
        }
    }

    fn is_more_general(&self, a: &Type, b: &Type) -> bool {
        match (a, b) {
            (Type::Dyn, other) => !matches!(other, Type::Dyn),
            (Type::Object(_) | Type::Named(_) | Type::Timestamp | Type::Duration | Type::Optional(_), Type::Null) => {
                true
            }
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.is_more_general(a, b),
            (Type::Map(a), Type::Map(b)) => self.is_more_general(&a.0, &b.0) || self.is_more_general(&a.1, &b.1),
            _ => false,
        }
    }

    /// The type that holds both, when one fits the other.
    pub(crate) fn join(&mut self, a: &Type, b: &Type) -> Option<Type> {
        if !self.assign(std::slice::from_ref(a), std::slice::from_ref(b)) {
            return None;
        }
        let (a, b) = (self.apply(a, false), self.apply(b, false));
        Some(if self.is_more_general(&b, &a) { b } else { a })
    }
}
