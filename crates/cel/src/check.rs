//! The type checker: resolves names and overloads, finds every node's type, and says in upstream's words what does not fit.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ast::{Entry, Expr, Fold, Kind, Literal, op};
use crate::env::{Env, Overload};
use crate::error::Issue;
use crate::parser::qualified;
use crate::types::{Substitution, Type};

/// What a node's name means.
#[derive(Clone, Debug, Default)]
pub(crate) enum Meaning {
    #[default]
    None,
    /// A type as a value.
    Type(Type),
    /// The overloads that a call may be.
    Call(Vec<&'static Overload>),
}

/// What the checker found, by the nodes' ids.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) types: Vec<Type>,
    pub(crate) meanings: Vec<Meaning>,
    /// The declared variables that are used.
    pub(crate) variables: BTreeSet<String>,
}

struct Checker<'e> {
    env: &'e Env,
    locals: Vec<(Arc<str>, Type)>,
    subst: Substitution,
    found: Checked,
    issues: Vec<Issue>,
    /// In how many calls of `format` the node stands.
    formatting: usize,
}

/// Checks a tree and resolves dotted names in it.
pub(crate) fn check(env: &Env, expr: &mut Expr, ids: usize) -> Result<Checked, Vec<Issue>> {
    let found =
        Checked { types: vec![Type::Error; ids], meanings: vec![Meaning::None; ids], variables: BTreeSet::new() };
    let mut checker =
        Checker { env, locals: Vec::new(), subst: Substitution::default(), found, issues: Vec::new(), formatting: 0 };
    checker.check(expr);
    if !checker.issues.is_empty() {
        return Err(checker.issues);
    }
    let Checker { subst, mut found, .. } = checker;
    for t in &mut found.types {
        *t = subst.apply(t, true);
    }
    Ok(found)
}

impl Checker<'_> {
    fn issue(&mut self, at: &Expr, message: String) {
        self.issues.push(Issue { offset: at.offset, message });
    }

    fn set(&mut self, id: usize, t: Type) {
        if let Some(slot) = self.found.types.get_mut(id) {
            *slot = t;
        }
    }

    fn mean(&mut self, id: usize, meaning: Meaning) {
        if let Some(slot) = self.found.meanings.get_mut(id) {
            *slot = meaning;
        }
    }

    fn type_of(&self, expr: &Expr) -> Type {
        self.found.types.get(expr.id).map_or(Type::Error, |t| self.subst.apply(t, false))
    }

    fn check(&mut self, expr: &mut Expr) {
        let t = match &mut expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(_) => self.ident(expr),
            Kind::Select { .. } => self.select(expr),
            Kind::Call { .. } => self.call(expr),
            Kind::List { .. } => self.list(expr),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { .. } => self.object(expr),
            Kind::Fold(fold) => self.fold(fold),
        };
        self.set(expr.id, t);
    }

    /// A variable or type of this name, with its type.
    fn lookup(&mut self, name: &str, id: usize) -> Option<Type> {
        if let Some((_, t)) = self.locals.iter().rev().find(|(n, _)| &**n == name) {
            return Some(t.clone());
        }
        if let Some(t) = self.env.lookup_variable(name) {
            self.found.variables.insert(name.to_owned());
            return Some(t.clone());
        }
        let t = Type::by_name(name).or_else(|| self.env.object_type(name))?;
        self.mean(id, Meaning::Type(t.clone()));
        Some(match t {
            Type::Type(None) => t,
            t => Type::Type(Some(Arc::new(t))),
        })
    }

    fn ident(&mut self, expr: &Expr) -> Type {
        let Kind::Ident(name) = &expr.kind else { return Type::Error };
        self.lookup(name, expr.id).unwrap_or_else(|| self.undeclared(expr, name))
    }

    fn undeclared(&mut self, expr: &Expr, name: &str) -> Type {
        self.issue(expr, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    /// Whether a dotted name begins with a variable of a fold, which then is what is meant.
    fn begins_local(&self, expr: &Expr) -> bool {
        match &expr.kind {
            Kind::Ident(name) => self.locals.iter().any(|(n, _)| n == name),
            Kind::Select { operand, .. } => self.begins_local(operand),
            _ => false,
        }
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        if let Some(name) = qualified(expr)
            && !self.begins_local(expr)
            && let Some(t) = self.lookup(&name, expr.id)
        {
            expr.kind = Kind::Ident(name.into());
            return t;
        }
        let Kind::Select { operand, field, test } = &mut expr.kind else { return Type::Error };
        self.check(operand);
        let (operand_type, field, test) = (self.type_of(operand), field.clone(), *test);
        let t = self.field(expr, &operand_type, &field);
        if test { Type::Bool } else { t }
    }

    /// The type of a field of a value of type `t`.
    fn field(&mut self, at: &Expr, t: &Type, field: &str) -> Type {
        match t {
            Type::Map(entry) => entry.1.clone(),
            Type::Object(object) => match object.field(field) {
                Some(t) => t,
                None => {
                    self.issue(at, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Optional(inner) => {
                let inner = self.field(at, inner, field);
                if matches!(inner, Type::Optional(_)) { inner } else { Type::optional(inner) }
            }
            Type::Param(_) => {
                self.subst.assign(std::slice::from_ref(t), &[Type::Dyn]);
                Type::Dyn
            }
            t if t.is_dyn_or_error() => Type::Dyn,
            t => {
                self.issue(at, format!("type '{t}' does not support field selection"));
                Type::Error
            }
        }
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let (id, offset) = (expr.id, expr.offset);
        let Kind::Call { function, target, args } = &mut expr.kind else { return Type::Error };
        if &**function == op::OPT_SELECT {
            return self.optional_select(id, offset, args);
        }
        // What looks like a member call may be a function with a dotted name.
        if let Some(inner) = target
            && !self.begins_local(inner)
            && let Some(prefix) = qualified(inner)
            && let name = format!("{prefix}.{function}")
            && self.env.function(&name).is_some()
        {
            *function = name.into();
            *target = None;
        }
        let member = target.is_some();
        let mut types = Vec::with_capacity(args.len() + 1);
        if let Some(target) = target {
            self.check(target);
            types.push(self.type_of(target));
        }
        let formats = usize::from(&**function == "format");
        self.formatting += formats;
        for arg in args.iter_mut() {
            self.check(arg);
            types.push(self.type_of(arg));
        }
        self.formatting -= formats;
        let function = function.clone();
        let Some(overloads) = self.env.function(&function) else {
            return self.undeclared(expr, &function);
        };
        self.resolve(expr, &function, overloads, member, &types)
    }

    fn optional_select(&mut self, id: usize, offset: usize, args: &mut [Expr]) -> Type {
        let [operand, field] = args else { return Type::Error };
        self.check(operand);
        self.set(field.id, Type::String);
        let operand_type = self.type_of(operand);
        let Kind::Literal(Literal::String(name)) = &field.kind else { return Type::Error };
        let at = Expr { id, offset, kind: Kind::Literal(Literal::Null) };
        let t = self.field(&at, &operand_type, name);
        let overloads = self.env.function(op::OPT_SELECT).unwrap_or_default();
        self.mean(id, Meaning::Call(overloads.iter().collect()));
        if matches!(t, Type::Optional(_)) { t } else { Type::optional(t) }
    }

    fn resolve(&mut self, at: &Expr, name: &str, overloads: &'static [Overload], member: bool, args: &[Type]) -> Type {
        let mut fitting = Vec::new();
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|o| o.member == member && o.params.len() == args.len()) {
            // Each use of an overload has type parameters of its own.
            let mut fresh = Vec::new();
            let params: Vec<Type> = overload.params.iter().map(|p| self.instantiate(p, &mut fresh)).collect();
            let returns = self.instantiate(&overload.result, &mut fresh);
            if !self.subst.assign(&params, args) {
                continue;
            }
            fitting.push(overload);
            let returns = self.subst.apply(&returns, false);
            result = Some(match result {
                None => returns,
                Some(earlier) if earlier == returns => earlier,
                Some(_) => Type::Dyn,
            });
        }
        let Some(result) = result else {
            let args: Vec<String> = args.iter().map(|t| self.subst.apply(t, true).to_string()).collect();
            let signature = match args.split_first() {
                Some((target, rest)) if member => format!("{target}.({})", rest.join(", ")),
                _ => format!("({})", args.join(", ")),
            };
            self.issue(at, format!("found no matching overload for '{name}' applied to '{signature}'"));
            return Type::Error;
        };
        self.mean(at.id, Meaning::Call(fitting));
        result
    }

    fn instantiate(&mut self, t: &Type, fresh: &mut Vec<(u32, Type)>) -> Type {
        match t {
            Type::Param(n) => {
                if let Some((_, t)) = fresh.iter().find(|(m, _)| m == n) {
                    return t.clone();
                }
                let own = self.subst.fresh();
                fresh.push((*n, own.clone()));
                own
            }
            Type::List(a) => Type::list(self.instantiate(a, fresh)),
            Type::Map(e) => Type::map(self.instantiate(&e.0, fresh), self.instantiate(&e.1, fresh)),
            Type::Optional(a) => Type::optional(self.instantiate(a, fresh)),
            Type::Type(Some(a)) => Type::Type(Some(Arc::new(self.instantiate(a, fresh)))),
            other => other.clone(),
        }
    }

    /// The element type of a literal's elements. They must all fit each other, but in the arguments of `format`.
    fn joined(&mut self, common: Option<Type>, at: &Expr, t: Type) -> Type {
        let Some(common) = common else { return t };
        self.subst.join(&common, &t).unwrap_or_else(|| {
            if self.formatting == 0 {
                let (a, b) = (self.subst.apply(&common, true), self.subst.apply(&t, true));
                self.issue(at, format!("expected type '{a}' but found '{b}'"));
            }
            Type::Dyn
        })
    }

    /// The type inside of an element written `?x`.
    fn unwrapped(&mut self, at: &Expr, t: Type) -> Type {
        match t {
            Type::Optional(inner) => (*inner).clone(),
            t if t.is_dyn_or_error() => Type::Dyn,
            t => {
                self.issue(at, format!("expected type 'optional_type({t})' but found '{t}'"));
                Type::Error
            }
        }
    }

    fn list(&mut self, expr: &mut Expr) -> Type {
        let Kind::List { elements, optional } = &mut expr.kind else { return Type::Error };
        let mut common = None;
        for (i, element) in elements.iter_mut().enumerate() {
            self.check(element);
            let mut t = self.type_of(element);
            if optional.contains(&i) {
                t = self.unwrapped(element, t);
            }
            common = Some(self.joined(common, element, t));
        }
        let item = common.unwrap_or_else(|| self.subst.fresh());
        Type::list(item)
    }

    fn map(&mut self, entries: &mut [Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            self.check(&mut entry.key);
            let t = self.type_of(&entry.key);
            keys = Some(self.joined(keys, &entry.key, t));
            self.check(&mut entry.value);
            let mut t = self.type_of(&entry.value);
            if entry.optional {
                t = self.unwrapped(&entry.value, t);
            }
            values = Some(self.joined(values, &entry.value, t));
        }
        let key = keys.unwrap_or_else(|| self.subst.fresh());
        let value = values.unwrap_or_else(|| self.subst.fresh());
        Type::map(key, value)
    }

    fn object(&mut self, expr: &mut Expr) -> Type {
        let at = Expr { id: expr.id, offset: expr.offset, kind: Kind::Literal(Literal::Null) };
        let Kind::Struct { name, fields } = &mut expr.kind else { return Type::Error };
        let Some(t) = self.env.object_type(name) else {
            let name = name.clone();
            for field in fields {
                self.check(&mut field.value);
            }
            return self.undeclared(&at, &name);
        };
        let Type::Object(object) = &t else { return Type::Error };
        for field in fields {
            self.check(&mut field.value);
            let mut found = self.type_of(&field.value);
            if field.optional {
                found = self.unwrapped(&field.value, found);
            }
            let place = Expr { id: at.id, offset: field.offset, kind: Kind::Literal(Literal::Null) };
            let Some(wanted) = object.field(&field.name) else {
                self.issue(&place, format!("undefined field '{}'", field.name));
                continue;
            };
            if !self.subst.assign(std::slice::from_ref(&wanted), std::slice::from_ref(&found)) {
                let name = &field.name;
                self.issue(
                    &place,
                    format!("expected type of field '{name}' is '{wanted}' but provided type is '{found}'"),
                );
            }
        }
        t
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let accu = self.type_of(&fold.init);
        let (first, second) = match self.type_of(&fold.range) {
            Type::List(item) if fold.var2.is_some() => (Type::Int, (*item).clone()),
            Type::List(item) => ((*item).clone(), Type::Error),
            Type::Map(entry) => (entry.0.clone(), entry.1.clone()),
            t if t.is_dyn_or_error() || matches!(t, Type::Param(_)) => {
                self.subst.assign(&[t], &[Type::Dyn]);
                (Type::Dyn, Type::Dyn)
            }
            t => {
                self.issue(
                    &fold.range,
                    format!(
                        "expression of type '{t}' cannot be range of a comprehension (must be list, map, or dynamic)"
                    ),
                );
                (Type::Error, Type::Error)
            }
        };
        let depth = self.locals.len();
        self.locals.push((fold.accu.clone(), accu.clone()));
        self.locals.push((fold.var.clone(), first));
        if let Some(var2) = &fold.var2 {
            self.locals.push((var2.clone(), second));
        }
        self.check(&mut fold.condition);
        self.assert(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        self.assert(&fold.step, &accu);
        // The result sees only the accumulator.
        self.locals.truncate(depth + 1);
        self.check(&mut fold.result);
        self.locals.truncate(depth);
        self.type_of(&fold.result)
    }

    fn assert(&mut self, at: &Expr, wanted: &Type) {
        let found = self.type_of(at);
        if !self.subst.assign(std::slice::from_ref(wanted), std::slice::from_ref(&found)) {
            let wanted = self.subst.apply(wanted, true);
            self.issue(at, format!("expected type '{wanted}' but found '{found}'"));
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
