//! Values. Objects are views of the caller's JSON: nothing is copied until an expression makes something new.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use base64::Engine as _;
use indexmap::IndexMap;
use serde_json::Value as Json;

use crate::decl::{DeclKind, DeclType, ListMerge};
use crate::error::EvalError;
use crate::library::opaque::Opaque;
use crate::time;
use crate::types::{ObjectType, Type};

/// A value of an expression; `'a` is the life of the objects it looks at.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// A point in time, in nanoseconds since 1970.
    Timestamp(i128),
    /// A span, in nanoseconds.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Value<'a>>>),
    Type(Type),
    /// A value of a library.
    Opaque(Opaque),
}

/// Text that is borrowed from an object or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// A JSON array with the type of the list, if it has one.
    Json(&'a [Json], Option<&'a DeclType>),
    /// Elements, and how they came to be merged.
    Owned(Arc<Vec<Value<'a>>>, Option<&'a DeclType>),
}

/// A map, or an object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// A JSON object with its type, if it has one.
    Json(&'a serde_json::Map<String, Json>, Option<&'a DeclType>),
    /// Entries.
    Owned(Arc<IndexMap<Key<'a>, Value<'a>>>),
    /// A constructed object with the name of its type.
    Object(Arc<str>, Arc<IndexMap<Key<'a>, Value<'a>>>),
    /// An object whose fields the host computes when asked.
    Lazy(Lazy<'a>),
}

/// An object whose fields the host computes.
#[derive(Clone, Copy)]
pub struct Lazy<'a>(pub &'a dyn Fields<'a>);

impl fmt::Debug for Lazy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lazy")
    }
}

/// The fields of an object that the host computes.
pub trait Fields<'a>: Send + Sync {
    /// The field's value; `None` when there is none. What computing it costs is the host's to account for.
    ///
    /// # Errors
    /// Those of computing it.
    fn field(&'a self, name: &str) -> Option<Result<Value<'a>, EvalError>>;
}

/// A map's key.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Text<'a>),
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Key::Bool(a), Key::Bool(b)) => a == b,
            (Key::String(a), Key::String(b)) => a.as_str() == b.as_str(),
            (Key::Int(a), Key::Int(b)) => a == b,
            (Key::Uint(a), Key::Uint(b)) => a == b,
            (Key::Int(a), Key::Uint(b)) | (Key::Uint(b), Key::Int(a)) => u64::try_from(*a) == Ok(*b),
            _ => false,
        }
    }
}

impl Eq for Key<'_> {}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Key::Bool(b) => b.hash(state),
            Key::Int(n) => i128::from(*n).hash(state),
            Key::Uint(n) => i128::from(*n).hash(state),
            Key::String(s) => s.as_str().hash(state),
        }
    }
}

impl<'a> Key<'a> {
    pub(crate) fn value(&self) -> Value<'a> {
        match self {
            Key::Bool(b) => Value::Bool(*b),
            Key::Int(n) => Value::Int(*n),
            Key::Uint(n) => Value::Uint(*n),
            Key::String(s) => Value::String(s.clone()),
        }
    }

    pub(crate) fn of(value: &Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(b) => Key::Bool(*b),
            Value::Int(n) => Key::Int(*n),
            Value::Uint(n) => Key::Uint(*n),
            Value::String(s) => Key::String(s.clone()),
            // A whole number is the same key however it is written.
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 9.0e15 => Key::Int(*d as i64),
            _ => return None,
        })
    }
}

impl<'a> Value<'a> {
    /// Text of one's own.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Value::String(Text::Shared(text.into()))
    }

    /// A list of one's own.
    pub fn list(items: Vec<Value<'a>>) -> Self {
        Value::List(List::Owned(Arc::new(items), None))
    }

    pub(crate) fn some(value: Value<'a>) -> Self {
        Value::Optional(Some(Arc::new(value)))
    }

    /// A view of the members of a JSON object, of a type if it has one.
    pub fn object(members: &'a serde_json::Map<String, Json>, decl: Option<&'a DeclType>) -> Self {
        Value::Map(Map::Json(members, decl))
    }

    /// A view of JSON, without a type: numbers are `int` when whole, `double` otherwise.
    pub fn json(json: &'a Json) -> Self {
        match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => n.as_i64().map_or_else(|| Value::Double(n.as_f64().unwrap_or_default()), Value::Int),
            Json::String(s) => Value::String(Text::Borrowed(s)),
            Json::Array(items) => Value::List(List::Json(items, None)),
            Json::Object(members) => Value::Map(Map::Json(members, None)),
        }
    }

    /// A view of JSON of a type.
    ///
    /// # Errors
    /// When the text is no time, span or base64 although its type says so.
    pub fn typed(json: &'a Json, decl: &'a DeclType) -> Result<Self, EvalError> {
        let invalid = |what: &str| EvalError::new(format_args!("Invalid {what} {json}"));
        Ok(match (json, &decl.kind) {
            (Json::Number(n), DeclKind::Double) => Value::Double(n.as_f64().unwrap_or_default()),
            (Json::String(s), DeclKind::Bytes) => Value::Bytes(
                base64::engine::general_purpose::STANDARD
                    .decode(s)
                    .map_err(|_| invalid("byte formatted string"))?
                    .into(),
            ),
            (Json::String(s), DeclKind::Duration) => {
                Value::Duration(time::parse_duration(s).ok_or_else(|| invalid("duration"))?)
            }
            (Json::String(s), DeclKind::Timestamp { date: true }) => {
                Value::Timestamp(time::parse_date(s).ok_or_else(|| invalid("date formatted string"))?)
            }
            (Json::String(s), DeclKind::Timestamp { date: false }) => {
                Value::Timestamp(time::parse_timestamp(s).ok_or_else(|| invalid("date-time formatted string"))?)
            }
            (Json::Array(items), DeclKind::List { .. }) => Value::List(List::Json(items, Some(decl))),
            (Json::Object(members), DeclKind::Map { .. } | DeclKind::Object { .. }) => {
                Value::Map(Map::Json(members, Some(decl)))
            }
            _ => Value::json(json),
        })
    }

    fn view(json: &'a Json, decl: Option<&'a DeclType>) -> Result<Self, EvalError> {
        match decl {
            Some(decl) => Value::typed(json, decl),
            None => Ok(Value::json(json)),
        }
    }

    /// The type that `type(x)` gives.
    pub fn runtime_type(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Timestamp(_) => Type::Timestamp,
            Value::Duration(_) => Type::Duration,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(Map::Object(name, _)) => Type::Object(ObjectType::Dynamic(name.clone())),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Type(_) => Type::Type(None),
            Value::Opaque(opaque) => Type::Named(opaque.type_name()),
        }
    }

    /// Whether the value may be an argument where `t` is wanted; looks only at the outermost level.
    pub(crate) fn fits(&self, t: &Type) -> bool {
        match (self, t) {
            (_, Type::Dyn | Type::Param(_)) => true,
            (Value::Type(_), Type::Type(_)) => true,
            (Value::List(_), Type::List(_))
            | (Value::Map(_), Type::Map(_) | Type::Object(_))
            | (Value::Optional(_), Type::Optional(_)) => true,
            (Value::Opaque(opaque), Type::Named(name)) => opaque.type_name() == *name,
            (Value::Opaque(_), _) | (_, Type::Named(_)) => false,
            (value, t) => value.runtime_type() == *t,
        }
    }

    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// Elements, entries, characters or bytes; `None` for values without a size.
    pub(crate) fn size(&self) -> Option<u64> {
        Some(match self {
            Value::String(s) => s.as_str().chars().count() as u64,
            Value::Bytes(b) => b.len() as u64,
            Value::List(l) => l.len() as u64,
            Value::Map(m) => m.len() as u64,
            Value::Optional(Some(inner)) => return inner.size(),
            Value::Opaque(opaque) => return opaque.size(),
            _ => return None,
        })
    }

    /// Equality: numbers by what they are, lists and maps element by element; values of different types differ.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => a.as_str() == b.as_str(),
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Type(a), Value::Type(b)) => a.runtime_name() == b.runtime_name(),
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (None, None) => true,
                _ => false,
            },
            (Value::List(a), Value::List(b)) => a.equals(b),
            (Value::Map(a), Value::Map(b)) => a.equals(b),
            (Value::Opaque(a), Value::Opaque(b)) => a.equals(b),
            (a, b) => numeric(a, b) == Some(Ordering::Equal),
        }
    }

    /// The order of two values that have one.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::String(a), Value::String(b)) => Some(a.as_str().cmp(b.as_str())),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (a, b) => numeric(a, b),
        }
    }

    /// The value as JSON, as upstream converts it.
    ///
    /// # Errors
    /// For values that JSON has no form of: types, library values, maps whose keys are no strings.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        let unsupported =
            || EvalError::new(format_args!("unsupported conversion of {} to JSON", self.runtime_type().runtime_name()));
        Ok(match self {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => Json::from(*n),
            Value::Uint(n) => Json::from(*n),
            // A whole double stays a whole number, as JSON has only one kind of number.
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 9.0e15 => Json::from(*d as i64),
            Value::Double(d) => serde_json::Number::from_f64(*d).map(Json::Number).ok_or_else(unsupported)?,
            Value::String(s) => Json::from(s.as_str()),
            Value::Bytes(b) => Json::from(base64::engine::general_purpose::STANDARD.encode(b)),
            Value::Timestamp(nanos) => Json::from(time::format_timestamp(*nanos)),
            Value::Duration(nanos) => Json::from(time::format_duration(*nanos)),
            Value::List(List::Json(items, _)) => Json::Array(items.to_vec()),
            Value::List(List::Owned(items, _)) => {
                Json::Array(items.iter().map(Value::to_json).collect::<Result<_, _>>()?)
            }
            Value::Map(Map::Json(members, _)) => Json::Object((*members).clone()),
            Value::Map(Map::Owned(entries) | Map::Object(_, entries)) => {
                let mut members = serde_json::Map::new();
                for (key, value) in entries.iter() {
                    let Key::String(key) = key else { return Err(unsupported()) };
                    members.insert(key.as_str().to_owned(), value.to_json()?);
                }
                Json::Object(members)
            }
            Value::Optional(Some(inner)) => inner.to_json()?,
            Value::Optional(None) => Json::Null,
            Value::Map(Map::Lazy(_)) | Value::Type(_) | Value::Opaque(_) => return Err(unsupported()),
        })
    }
}

/// The order of two numbers of any kinds; `None` for others and for not-a-number.
fn numeric(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let whole = |v: &Value<'_>| match v {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    };
    // A double against a whole number: beyond what whole numbers reach, the double decides.
    let mixed = |n: i128, d: f64| {
        if d.is_nan() {
            None
        } else if d >= 1.9e19 {
            Some(Ordering::Less)
        } else if d <= -9.3e18 {
            Some(Ordering::Greater)
        } else {
            Some(n.cmp(&(d.trunc() as i128)).then(0.0f64.partial_cmp(&d.fract()).unwrap_or(Ordering::Equal)))
        }
    };
    match (whole(a), whole(b), a, b) {
        (Some(a), Some(b), ..) => Some(a.cmp(&b)),
        (Some(a), _, _, Value::Double(b)) => mixed(a, *b),
        (_, Some(b), Value::Double(a), _) => mixed(b, *a).map(Ordering::reverse),
        (_, _, Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        _ => None,
    }
}

impl<'a> List<'a> {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            List::Json(items, _) => items.len(),
            List::Owned(items, _) => items.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An element.
    ///
    /// # Errors
    /// When its text does not fit its type; see [`Value::typed`].
    pub fn get(&self, index: usize) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            List::Json(items, decl) => {
                let items: &'a [Json] = items;
                let item = decl.and_then(|d| d.element()).map(|d| &**d);
                items.get(index).map(|json| Value::view(json, item))
            }
            List::Owned(items, _) => items.get(index).cloned().map(Ok),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, EvalError>> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// All elements.
    pub(crate) fn to_vec(&self) -> Result<Vec<Value<'a>>, EvalError> {
        self.iter().collect()
    }

    fn decl(&self) -> Option<&'a DeclType> {
        match self {
            List::Json(_, decl) | List::Owned(_, decl) => *decl,
        }
    }

    fn merge(&self) -> &'a ListMerge {
        match self.decl().map(|d| &d.kind) {
            Some(DeclKind::List { merge, .. }) => merge,
            _ => &ListMerge::Atomic,
        }
    }

    /// What identifies an element of a map-like list.
    fn key_of(keys: &[String], value: &Value<'a>) -> Vec<Option<Value<'a>>> {
        let member = |key: &String| match value {
            Value::Map(map) => map.get_json(key).and_then(Result::ok),
            _ => None,
        };
        keys.iter().map(member).collect()
    }

    fn same_key(a: &[Option<Value<'a>>], b: &[Option<Value<'a>>]) -> bool {
        a.iter().zip(b).all(|(a, b)| match (a, b) {
            (Some(a), Some(b)) => a.equals(b),
            (None, None) => true,
            _ => false,
        })
    }

    pub(crate) fn equals(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let (Ok(ours), Ok(theirs)) = (self.to_vec(), other.to_vec()) else { return false };
        match self.merge() {
            ListMerge::Atomic => ours.iter().zip(&theirs).all(|(a, b)| a.equals(b)),
            ListMerge::Set => {
                ours.iter().all(|a| theirs.iter().any(|b| a.equals(b)))
                    && theirs.iter().all(|b| ours.iter().any(|a| a.equals(b)))
            }
            ListMerge::Map(keys) => ours.iter().all(|a| {
                let key = Self::key_of(keys, a);
                theirs.iter().any(|b| Self::same_key(&key, &Self::key_of(keys, b)) && a.equals(b))
            }),
        }
    }

    /// Both lists after each other; sets are united, map-like lists merged by key.
    pub(crate) fn concat(self, other: &Self) -> Result<Self, EvalError> {
        let (merge, decl) = (self.merge(), self.decl());
        let mut items = match self {
            List::Owned(items, _) => Arc::try_unwrap(items).unwrap_or_else(|shared| (*shared).clone()),
            json => json.to_vec()?,
        };
        for value in other.iter() {
            let value = value?;
            let present = match merge {
                ListMerge::Atomic => None,
                ListMerge::Set => items.iter().position(|item| item.equals(&value)),
                ListMerge::Map(keys) => {
                    let key = Self::key_of(keys, &value);
                    items.iter().position(|item| Self::same_key(&key, &Self::key_of(keys, item)))
                }
            };
            match present.and_then(|i| items.get_mut(i)) {
                Some(slot) => *slot = value,
                None => items.push(value),
            }
        }
        Ok(List::Owned(Arc::new(items), decl))
    }
}

impl<'a> Map<'a> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        match self {
            Map::Json(members, _) => members.len(),
            Map::Owned(entries) | Map::Object(_, entries) => entries.len(),
            Map::Lazy(_) => 0,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A member by its JSON name.
    fn get_json(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Map::Json(members, decl) => {
                let members: &'a serde_json::Map<String, Json> = members;
                let json = members.get(name)?;
                let decl = decl.and_then(|d| match &d.kind {
                    DeclKind::Object { fields, .. } => fields.values().find(|f| f.json == name).map(|f| &*f.decl),
                    _ => d.element().map(|d| &**d),
                });
                Some(Value::view(json, decl))
            }
            _ => self.get_str(name),
        }
    }

    fn get_str(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Map::Json(members, decl) => {
                let members: &'a serde_json::Map<String, Json> = members;
                match decl.map(|d| (d, &d.kind)) {
                    Some((d, DeclKind::Object { .. })) => {
                        let field = d.field(name)?;
                        // A field that is null is as absent.
                        members
                            .get(&field.json)
                            .filter(|json| !json.is_null())
                            .map(|json| Value::typed(json, &field.decl))
                    }
                    Some((d, _)) => members.get(name).map(|json| Value::view(json, d.element().map(|d| &**d))),
                    None => members.get(name).map(|json| Ok(Value::json(json))),
                }
            }
            Map::Owned(entries) | Map::Object(_, entries) => {
                let key = Key::String(Text::Shared(name.into()));
                entries.get(&key).cloned().map(Ok)
            }
            Map::Lazy(_) => None,
        }
    }

    /// The value under a key, or of a field.
    ///
    /// # Errors
    /// When its text does not fit its type; see [`Value::typed`].
    pub(crate) fn get(&self, key: &Key<'a>) -> Option<Result<Value<'a>, EvalError>> {
        match (self, key) {
            (Map::Owned(entries) | Map::Object(_, entries), key) => entries.get(key).cloned().map(Ok),
            (Map::Lazy(lazy), Key::String(name)) => lazy.0.field(name.as_str()),
            (map, Key::String(name)) => map.get_str(name.as_str()),
            _ => None,
        }
    }

    /// The keys in order.
    pub(crate) fn keys(&self) -> Vec<Key<'a>> {
        match self {
            Map::Json(members, decl) => {
                let members: &'a serde_json::Map<String, Json> = members;
                match decl.map(|d| &d.kind) {
                    Some(DeclKind::Object { fields, .. }) => fields
                        .iter()
                        .filter(|(_, f)| members.contains_key(&f.json))
                        .map(|(name, _)| Key::String(Text::Borrowed(name)))
                        .collect(),
                    _ => members.keys().map(|k| Key::String(Text::Borrowed(k))).collect(),
                }
            }
            Map::Owned(entries) | Map::Object(_, entries) => entries.keys().cloned().collect(),
            Map::Lazy(_) => Vec::new(),
        }
    }

    pub(crate) fn equals(&self, other: &Self) -> bool {
        if let (Map::Object(a, _), Map::Object(b, _)) = (self, other)
            && a != b
        {
            return false;
        }
        // Objects of a schema may have members that expressions do not see; they count.
        if let (Map::Json(ours, decl), Map::Json(theirs, _)) = (self, other) {
            let known = |name: &str| match decl.map(|d| &d.kind) {
                Some(DeclKind::Object { fields, .. }) => fields.values().find(|f| f.json == name).map(|f| &*f.decl),
                _ => decl.and_then(|d| d.element()).map(|d| &**d),
            };
            return ours.len() == theirs.len()
                && ours.iter().all(|(name, a)| {
                    match (Value::view(a, known(name)), theirs.get(name).map(|b| Value::view(b, known(name)))) {
                        (Ok(a), Some(Ok(b))) => a.equals(&b),
                        _ => false,
                    }
                });
        }
        let keys = self.keys();
        keys.len() == other.keys().len()
            && keys.iter().all(|key| match (self.get(key), other.get(key)) {
                (Some(Ok(a)), Some(Ok(b))) => a.equals(&b),
                _ => false,
            })
    }
}

impl From<bool> for Value<'_> {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}
