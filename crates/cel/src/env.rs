//! What expressions may name: variables, types and the functions of the libraries.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use crate::library;
use crate::types::{ObjectType, Type};
use crate::value::Value;
use crate::{CallContext, EvalError};

/// The declared names of a place where expressions are written.
///
/// The libraries are those of upstream's environment for compatibility version 1.34, which the API server of 1.35 uses. The bindings
/// extension (`cel.bind`) is not among them.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: BTreeMap<String, Type>,
    /// Whether `Object{…}` and `JSONPatch{…}` may be constructed.
    mutation: bool,
}

impl Env {
    /// Only the libraries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a variable. The name may be dotted, as in `authorizer.requestResource`.
    #[must_use]
    pub fn variable(mut self, name: &str, t: Type) -> Self {
        self.variables.insert(name.to_owned(), t);
        self
    }

    /// Allows the types of mutations: `Object`, `Object.spec` and so on, `JSONPatch`, and the function `jsonpatch.escapeKey`.
    #[must_use]
    pub fn mutation(mut self) -> Self {
        self.mutation = true;
        self
    }

    pub(crate) fn lookup_variable(&self, name: &str) -> Option<&Type> {
        self.variables.get(name)
    }

    /// A type that may be constructed with `{…}`.
    pub(crate) fn object_type(&self, name: &str) -> Option<Type> {
        if !self.mutation {
            return None;
        }
        if name == "JSONPatch" {
            return Some(json_patch_type());
        }
        (name == "Object" || name.starts_with("Object.")).then(|| Type::Object(ObjectType::Dynamic(name.into())))
    }

    pub(crate) fn function(&self, name: &str) -> Option<&'static [Overload]> {
        if name == "jsonpatch.escapeKey" && !self.mutation {
            return None;
        }
        FUNCTIONS.get(name).map(Vec::as_slice)
    }
}

/// The type of the operations of a JSON patch.
pub fn json_patch_type() -> Type {
    let text = |name: &str| (name.to_owned(), Type::String);
    Type::declared("JSONPatch", vec![text("op"), text("path"), text("from"), ("value".to_owned(), Type::Dyn)])
}

/// An overload's body. Arguments fit the parameters in kind; the target comes first.
pub(crate) type Body = for<'a> fn(&mut CallContext<'_>, &mut [Value<'a>]) -> Result<Value<'a>, EvalError>;

/// A row of a library: function, overload, signature, body.
pub(crate) type Row = (&'static str, &'static str, &'static str, Body);

/// An overload of a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) id: &'static str,
    pub(crate) member: bool,
    /// The target's type first, if a member.
    pub(crate) params: Vec<Type>,
    pub(crate) result: Type,
    pub(crate) body: Body,
}

static FUNCTIONS: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut functions: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for (name, id, signature, body) in library::ROWS.iter().copied().flatten() {
        functions.entry(name).or_default().push(overload(id, signature, *body));
    }
    functions
});

/// Reads a signature such as `list(A).(int, int) list(A)`; a capital letter is a type parameter.
fn overload(id: &'static str, signature: &str, body: Body) -> Overload {
    let mut reader = Reader { rest: signature };
    let mut params = Vec::new();
    let member = !reader.rest.starts_with('(');
    if member {
        params.push(reader.read());
        reader.skip(".");
    }
    reader.skip("(");
    while !reader.rest.starts_with(')') {
        params.push(reader.read());
        reader.skip(",");
    }
    reader.skip(")");
    Overload { id, member, params, result: reader.read(), body }
}

struct Reader<'s> {
    rest: &'s str,
}

impl Reader<'_> {
    fn skip(&mut self, text: &str) {
        self.rest = self.rest.strip_prefix(text).unwrap_or(self.rest).trim_start();
    }

    fn read(&mut self) -> Type {
        // A dot belongs to the name unless a parenthesis follows it.
        let end = self
            .rest
            .char_indices()
            .find(|(i, c)| "(), ".contains(*c) || (*c == '.' && self.rest[i + 1..].starts_with('(')))
            .map_or(self.rest.len(), |(i, _)| i);
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        let mut parts = Vec::new();
        if self.rest.starts_with('(') && matches!(name, "list" | "map" | "optional" | "type") {
            self.skip("(");
            while !self.rest.starts_with(')') {
                parts.push(Arc::new(self.read()));
                self.skip(",");
            }
            self.skip(")");
        }
        self.rest = self.rest.trim_start();
        let part = |i: usize| parts.get(i).cloned().unwrap_or_else(|| Arc::new(Type::Dyn));
        match name {
            "list" => Type::List(part(0)),
            "map" => Type::Map(Arc::new(((*part(0)).clone(), (*part(1)).clone()))),
            "optional" => Type::Optional(part(0)),
            "type" => Type::Type(Some(part(0))),
            "duration" => Type::Duration,
            "timestamp" => Type::Timestamp,
            name => match name.as_bytes() {
                [letter @ b'A'..=b'Z'] => Type::Param(u32::from(letter - b'A')),
                _ => Type::by_name(name).unwrap_or(Type::Error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_sound() {
        fn sound(t: &Type) -> bool {
            match t {
                Type::Error => false,
                Type::List(a) | Type::Optional(a) | Type::Type(Some(a)) => sound(a),
                Type::Map(e) => sound(&e.0) && sound(&e.1),
                _ => true,
            }
        }
        let mut ids = std::collections::BTreeSet::new();
        for (name, id, signature, _) in library::ROWS.iter().copied().flatten() {
            assert!(ids.insert((name, id)), "{name} {id} twice");
            let o = FUNCTIONS[name].iter().find(|o| o.id == *id).unwrap();
            assert!(o.params.iter().all(sound) && sound(&o.result), "{name} {id}: {signature}");
        }
        let slice = &FUNCTIONS["slice"][0];
        assert_eq!(slice.params.len(), 3);
        assert!(slice.member);
    }
}
