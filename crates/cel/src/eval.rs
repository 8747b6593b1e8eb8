//! The evaluator. Costs are counted as upstream counts them at run time, node by node, and end an evaluation that spends too much.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::Program;
use crate::ast::{Entry, Expr, Fold, Kind, Literal, op};
use crate::budget::Budget;
use crate::check::Meaning;
use crate::cost;
use crate::env::Overload;
use crate::error::EvalError;
use crate::library::opaque::Opaque;
use crate::value::{Fields, Key, List, Map, Text, Value};

type Evaluated<'a> = Result<Value<'a>, EvalError>;

/// The values of the declared variables.
#[derive(Clone, Default)]
pub struct Activation<'a> {
    variables: HashMap<&'a str, Value<'a>>,
}

impl<'a> Activation<'a> {
    /// Without variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a variable its value.
    pub fn set(&mut self, name: &'a str, value: Value<'a>) {
        self.variables.insert(name, value);
    }

    /// Gives a variable its value.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.set(name, value);
        self
    }

    /// Gives a variable whose fields are computed when asked for.
    #[must_use]
    pub fn with_lazy(self, name: &'a str, fields: &'a dyn Fields<'a>) -> Self {
        self.with(name, Value::Map(Map::Lazy(crate::value::Lazy(fields))))
    }
}

/// What bodies of functions may use.
pub(crate) struct CallContext<'p> {
    program: &'p Program,
}

impl CallContext<'_> {
    /// A regular expression; those written as literals are compiled once.
    pub(crate) fn regex(&self, pattern: &str) -> Result<std::borrow::Cow<'_, regex::Regex>, EvalError> {
        match self.program.regexes.get(pattern) {
            Some(regex) => Ok(std::borrow::Cow::Borrowed(regex)),
            None => compile_regex(pattern).map(std::borrow::Cow::Owned).map_err(EvalError::new),
        }
    }
}

/// Bytes that a compiled regular expression may take.
const MAX_REGEX: usize = 1 << 20;

pub(crate) fn compile_regex(pattern: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(pattern).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).nest_limit(100).build().map_err(
        |error| {
            let text = error.to_string();
            let reason = text
                .lines()
                .rev()
                .find_map(|l| l.strip_prefix("error: "))
                .unwrap_or("expression is too large")
                .to_owned();
            format!("error parsing regexp: {reason}: `{pattern}`")
        },
    )
}

pub(crate) struct Evaluator<'p, 'a, 'b> {
    pub(crate) program: &'p Program,
    pub(crate) activation: &'b Activation<'a>,
    pub(crate) budget: &'b mut Budget,
    pub(crate) locals: Vec<(Arc<str>, Value<'a>)>,
}

impl<'a> Evaluator<'_, 'a, '_> {
    fn is_constant(&self, expr: &Expr) -> bool {
        self.program.constants.get(expr.id).copied().unwrap_or_default()
    }

    fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        self.budget.spend(cost)
    }

    pub(crate) fn eval(&mut self, expr: &Expr) -> Evaluated<'a> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(literal_value(literal)),
            Kind::Ident(_) => {
                if let Some(Meaning::Type(t)) = self.program.checked.meanings.get(expr.id) {
                    return Ok(Value::Type(t.clone()));
                }
                self.spend(1)?;
                self.attribute(expr)
            }
            Kind::Select { test, .. } => {
                // A test of presence costs nothing itself, only its steps do.
                if !*test && !conditional(expr) {
                    self.spend(1)?;
                }
                self.attribute(expr)
            }
            Kind::Call { function, args, target } => match (&**function, args.as_slice(), target) {
                (op::INDEX | op::OPT_INDEX | op::OPT_SELECT, _, None) => {
                    if !conditional(expr) {
                        self.spend(1)?;
                    }
                    self.attribute(expr)
                }
                (op::CONDITIONAL, _, None) => self.attribute(expr),
                (op::AND, [a, b], None) => self.logical(a, b, false),
                (op::OR, [a, b], None) => self.logical(a, b, true),
                (op::NOT_STRICTLY_FALSE, [arg], None) => self.not_strictly_false(arg),
                ("or" | "orValue", [other], Some(target)) => self.or(function, target, other),
                _ => self.call(expr),
            },
            Kind::List { elements, optional } => {
                self.list(elements, optional, if self.is_constant(expr) { 0 } else { cost::LIST })
            }
            Kind::Map(entries) => self.map(entries, if self.is_constant(expr) { 0 } else { cost::MAP }),
            Kind::Struct { .. } => self.object(expr),
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    /// The value of a chain of names, selections, indexes and conditionals, whose base is already paid for: each step costs one.
    fn attribute(&mut self, expr: &Expr) -> Evaluated<'a> {
        match &expr.kind {
            Kind::Ident(name) => self.name(name),
            Kind::Select { operand, field, test } => {
                let operand = self.operand(operand)?;
                self.spend(1)?;
                if *test { self.has(operand, field) } else { self.field(operand, field) }
            }
            Kind::Call { function, args, .. } => match (&**function, args.as_slice()) {
                (op::CONDITIONAL, [condition, yes, no]) => match self.eval(condition)? {
                    Value::Bool(true) => self.operand(yes),
                    Value::Bool(false) => self.operand(no),
                    _ => Err(EvalError::no_such_overload()),
                },
                (function @ (op::INDEX | op::OPT_INDEX | op::OPT_SELECT), [operand, index]) => {
                    let operand = self.operand(operand)?;
                    let index = self.operand(index)?;
                    if function == op::INDEX {
                        self.spend(1)?;
                        return self.index(operand, &index);
                    }
                    // What is not there costs nothing.
                    let found = self.optional_index(operand, &index)?;
                    self.spend(u64::from(matches!(found, Value::Optional(Some(_)))))?;
                    Ok(found)
                }
                _ => self.eval(expr),
            },
            _ => self.eval(expr),
        }
    }

    /// A part of a chain: another chain is not paid for anew.
    fn operand(&mut self, expr: &Expr) -> Evaluated<'a> {
        if is_attribute(expr) && !matches!(self.program.checked.meanings.get(expr.id), Some(Meaning::Type(_))) {
            self.attribute(expr)
        } else {
            self.eval(expr)
        }
    }

    fn name(&self, name: &str) -> Evaluated<'a> {
        if let Some((_, value)) = self.locals.iter().rev().find(|(n, _)| &**n == name) {
            return match value {
                Value::Opaque(Opaque::Failed(why)) => Err(EvalError::new(why)),
                value => Ok(value.clone()),
            };
        }
        let value = self.activation.variables.get(name).cloned();
        value.ok_or_else(|| EvalError::new(format_args!("no such attribute(s): {name}")))
    }

    fn field(&mut self, operand: Value<'a>, field: &Arc<str>) -> Evaluated<'a> {
        match operand {
            Value::Map(map) => {
                let key = Key::String(Text::Shared(field.clone()));
                map.get(&key).unwrap_or_else(|| Err(EvalError::no_such_key(field)))
            }
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => self.optional_index((*inner).clone(), &Value::text(field.clone())),
            // As upstream says of values that have no fields.
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn has(&mut self, operand: Value<'a>, field: &Arc<str>) -> Evaluated<'a> {
        match operand {
            Value::Map(map) => {
                let key = Key::String(Text::Shared(field.clone()));
                match map.get(&key) {
                    Some(Err(error)) if error.is_cancelled() => Err(error),
                    found => Ok(Value::Bool(found.is_some())),
                }
            }
            Value::Optional(None) => Ok(Value::Bool(false)),
            Value::Optional(Some(inner)) => self.has((*inner).clone(), field),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn index(&mut self, operand: Value<'a>, index: &Value<'a>) -> Evaluated<'a> {
        match operand {
            Value::List(list) => {
                let at = match index {
                    Value::Int(n) => Some(*n),
                    Value::Uint(n) => i64::try_from(*n).ok(),
                    Value::Double(d) if d.fract() == 0.0 => Some(*d as i64),
                    _ => {
                        return Err(EvalError::new(format_args!(
                            "unsupported index type '{}' in list",
                            index.runtime_type().runtime_name()
                        )));
                    }
                };
                let found = at.and_then(|n| usize::try_from(n).ok()).and_then(|n| list.get(n));
                found.unwrap_or_else(|| Err(EvalError::new(format_args!("index out of bounds: {}", at.unwrap_or(-1)))))
            }
            Value::Map(map) => {
                let key = Key::of(index).ok_or_else(|| EvalError::new("unsupported key type"))?;
                map.get(&key).unwrap_or_else(|| Err(EvalError::no_such_key(display(index))))
            }
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => self.optional_index((*inner).clone(), index),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// The element or field as an optional.
    fn optional_index(&mut self, operand: Value<'a>, index: &Value<'a>) -> Evaluated<'a> {
        let operand = match operand {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => (*inner).clone(),
            other => other,
        };
        let found = match &operand {
            Value::List(list) => match index {
                Value::Int(n) => usize::try_from(*n).ok().and_then(|n| list.get(n)),
                Value::Uint(n) => usize::try_from(*n).ok().and_then(|n| list.get(n)),
                _ => return Err(EvalError::no_such_overload()),
            },
            Value::Map(map) => {
                let key = Key::of(index).ok_or_else(|| EvalError::new("unsupported key type"))?;
                map.get(&key)
            }
            _ => return Err(EvalError::no_such_overload()),
        };
        found.transpose().map(|found| Value::Optional(found.map(Arc::new)))
    }

    /// `&&` and `||`: a side that decides hides the error of the other.
    fn logical(&mut self, a: &Expr, b: &Expr, decisive: bool) -> Evaluated<'a> {
        let first = self.side(a, decisive)?;
        if let Ok(true) = first {
            return Ok(Value::Bool(decisive));
        }
        let second = self.side(b, decisive)?;
        match (first, second) {
            (_, Ok(true)) => Ok(Value::Bool(decisive)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            _ => Ok(Value::Bool(!decisive)),
        }
    }

    /// Whether a side decides, or why it gives no answer. An end for cost is no answer to be hidden.
    fn side(&mut self, expr: &Expr, decisive: bool) -> Result<Result<bool, EvalError>, EvalError> {
        match self.eval(expr) {
            Ok(Value::Bool(b)) => Ok(Ok(b == decisive)),
            Ok(_) => Ok(Err(EvalError::no_such_overload())),
            Err(error) if error.is_cancelled() => Err(error),
            Err(error) => Ok(Err(error)),
        }
    }

    fn not_strictly_false(&mut self, arg: &Expr) -> Evaluated<'a> {
        let value = self.eval(arg);
        self.spend(1)?;
        match value {
            Err(error) if error.is_cancelled() => Err(error),
            Ok(Value::Bool(b)) => Ok(Value::Bool(b)),
            _ => Ok(Value::Bool(true)),
        }
    }

    fn or(&mut self, function: &str, target: &Expr, other: &Expr) -> Evaluated<'a> {
        match self.eval(target)? {
            Value::Optional(Some(inner)) if function == "orValue" => Ok((*inner).clone()),
            Value::Optional(Some(inner)) => Ok(Value::Optional(Some(inner))),
            Value::Optional(None) => self.eval(other),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn call(&mut self, expr: &Expr) -> Evaluated<'a> {
        let Kind::Call { function, target, args } = &expr.kind else { return Err(EvalError::no_such_overload()) };
        let mut values = Vec::with_capacity(args.len() + 1);
        let mut failed = None;
        for arg in target.iter().map(|t| &**t).chain(args) {
            match self.eval(arg) {
                Ok(value) => values.push(value),
                // Upstream evaluates both arguments of a function of two, and counts the call, before it looks for errors.
                Err(error) if !error.is_cancelled() && values.capacity() <= 2 => {
                    values.push(Value::Null);
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = failed {
            self.spend(cost::runtime::before(function, self.overload(expr, function), &values))?;
            return Err(error);
        }
        self.apply(expr, function, values)
    }

    /// The overload as far as upstream knows it, and so its cost: where the checker left one.
    fn overload(&self, expr: &Expr, function: &str) -> &'static str {
        match self.program.checked.meanings.get(expr.id) {
            Some(Meaning::Call(overloads))
                if overloads.len() == 1 || matches!(function, op::EQUALS | op::NOT_EQUALS) =>
            {
                overloads.first().map_or("", |o| o.id)
            }
            _ => "",
        }
    }

    fn apply(&mut self, expr: &Expr, function: &str, mut values: Vec<Value<'a>>) -> Evaluated<'a> {
        let Some(Meaning::Call(overloads)) = self.program.checked.meanings.get(expr.id) else {
            return Err(EvalError::no_such_overload());
        };
        let fits = |o: &&&'static Overload| o.params.iter().zip(&values).all(|(p, v)| v.fits(p));
        let Some(overload) = overloads.iter().find(fits) else {
            return Err(EvalError::no_such_overload());
        };
        let known = self.overload(expr, function);
        let free = self.is_constant(expr) || (known == "in_list" && in_constant_set(expr));
        if !free {
            self.spend(cost::runtime::before(function, known, &values))?;
        }
        let result = (overload.body)(&mut CallContext { program: self.program }, &mut values)?;
        if !free {
            self.spend(cost::runtime::after(function, known, &result))?;
        }
        Ok(result)
    }

    fn list(&mut self, elements: &[Expr], optional: &[usize], cost: u64) -> Evaluated<'a> {
        let mut items = Vec::with_capacity(elements.len());
        for (i, element) in elements.iter().enumerate() {
            let value = self.eval(element)?;
            if !optional.contains(&i) {
                items.push(value);
                continue;
            }
            match value {
                Value::Optional(Some(inner)) => items.push((*inner).clone()),
                Value::Optional(None) => {}
                _ => return Err(EvalError::new("cannot initialize optional list element from non-optional value")),
            }
        }
        self.spend(cost)?;
        Ok(Value::list(items))
    }

    fn map(&mut self, entries: &[Entry], cost: u64) -> Evaluated<'a> {
        let mut map = IndexMap::with_capacity(entries.len());
        for entry in entries {
            let key = self.eval(&entry.key)?;
            let key = Key::of(&key).ok_or_else(|| EvalError::new("unsupported key type"))?;
            let mut value = self.eval(&entry.value)?;
            if entry.optional {
                match value {
                    Value::Optional(Some(inner)) => value = (*inner).clone(),
                    Value::Optional(None) => continue,
                    _ => return Err(EvalError::new("cannot initialize optional entry from non-optional value")),
                }
            }
            let shown = display(&key.value());
            if map.insert(key, value).is_some() {
                return Err(EvalError::new(format_args!("Failed with repeated key {shown}")));
            }
        }
        self.spend(cost)?;
        Ok(Value::Map(Map::Owned(Arc::new(map))))
    }

    fn object(&mut self, expr: &Expr) -> Evaluated<'a> {
        let Kind::Struct { name, fields } = &expr.kind else { return Err(EvalError::no_such_overload()) };
        let mut members = IndexMap::with_capacity(fields.len());
        for field in fields {
            let mut value = self.eval(&field.value)?;
            if field.optional {
                match value {
                    Value::Optional(Some(inner)) => value = (*inner).clone(),
                    Value::Optional(None) => continue,
                    _ => return Err(EvalError::new("cannot initialize optional field from non-optional value")),
                }
            }
            if name.starts_with("Object") {
                nested_name(&format!("{name}.{}", field.name), &value)?;
            }
            members.insert(Key::String(Text::Shared(field.name.clone())), value);
        }
        self.spend(cost::STRUCT)?;
        Ok(Value::Map(Map::Object(name.clone(), Arc::new(members))))
    }

    fn fold(&mut self, fold: &Fold) -> Evaluated<'a> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init)?;
        let depth = self.locals.len();
        self.locals.push((fold.accu.clone(), init));
        let outcome = self.iterate(fold, &range);
        self.locals.truncate(depth + 1);
        let result = outcome.and_then(|()| self.eval(&fold.result));
        self.locals.truncate(depth);
        result
    }

    fn iterate(&mut self, fold: &Fold, range: &Value<'a>) -> Result<(), EvalError> {
        match range {
            Value::List(list) => {
                for i in 0..list.len() {
                    let Some(item) = list.get(i) else { break };
                    let item = item?;
                    let go_on = match &fold.var2 {
                        None => self.round(fold, item, None)?,
                        Some(_) => self.round(fold, Value::Int(i64::try_from(i).unwrap_or(i64::MAX)), Some(item))?,
                    };
                    if !go_on {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = match &fold.var2 {
                        None => None,
                        Some(_) => map.get(&key).transpose()?,
                    };
                    if !self.round(fold, key.value(), value)? {
                        break;
                    }
                }
            }
            _ => {
                return Err(EvalError::new(
                    "got '".to_owned() + &range.runtime_type().runtime_name() + "', expected iterable type",
                ));
            }
        }
        Ok(())
    }

    /// One round of a fold; false when its condition ends it.
    fn round(&mut self, fold: &Fold, first: Value<'a>, second: Option<Value<'a>>) -> Result<bool, EvalError> {
        let depth = self.locals.len();
        self.locals.push((fold.var.clone(), first));
        if let (Some(var), Some(value)) = (&fold.var2, second) {
            self.locals.push((var.clone(), value));
        }
        let go_on = match self.eval(&fold.condition) {
            Ok(Value::Bool(false)) => Ok(false),
            Err(error) if error.is_cancelled() => Err(error),
            _ => Ok(true),
        };
        let outcome = match go_on {
            Ok(true) => {
                let accu = depth - 1;
                self.step(fold, &fold.step, accu).map(|value| {
                    if let (Some(value), Some(slot)) = (value, self.locals.get_mut(accu)) {
                        slot.1 = value;
                    }
                    true
                })
            }
            other => other,
        };
        self.locals.truncate(depth);
        match outcome {
            // `exists` and `all` go on past elements that fail, as a later one may decide.
            Err(error) if !error.is_cancelled() && is_quantifier(fold) => {
                if let Some(slot) = self.locals.get_mut(depth - 1) {
                    slot.1 = failed(&error);
                }
                Ok(true)
            }
            other => other,
        }
    }

    /// The accumulator's next value; `None` when it stays. What only appends to it does so in place.
    fn step(&mut self, fold: &Fold, step: &Expr, accu: usize) -> Result<Option<Value<'a>>, EvalError> {
        let Kind::Call { function, args, target: None } = &step.kind else { return self.eval(step).map(Some) };
        let is_accu = |e: &Expr| matches!(&e.kind, Kind::Ident(name) if *name == fold.accu);
        match (&**function, args.as_slice()) {
            (op::CONDITIONAL, [condition, yes, no]) if is_accu(no) => match self.eval(condition)? {
                Value::Bool(true) => self.step(fold, yes, accu),
                Value::Bool(false) => Ok(None),
                _ => Err(EvalError::no_such_overload()),
            },
            (op::ADD | op::MAP_INSERT, [first, rest @ ..]) if is_accu(first) => {
                self.spend(1)?;
                let mut values = Vec::with_capacity(args.len());
                values.push(Value::Null);
                for arg in rest {
                    values.push(self.eval(arg)?);
                }
                // Taken out of its slot, the list has one owner and grows without being copied.
                if let (Some(slot), Some(first)) = (self.locals.get_mut(accu), values.first_mut()) {
                    std::mem::swap(&mut slot.1, first);
                }
                self.apply(step, function, values).map(Some)
            }
            _ => self.eval(step).map(Some),
        }
    }
}

/// An accumulator that holds an error: a quantifier's later elements may still decide.
fn failed<'a>(error: &EvalError) -> Value<'a> {
    Value::Opaque(Opaque::Failed(Arc::from(error.to_string())))
}

fn is_quantifier(fold: &Fold) -> bool {
    matches!(&fold.step.kind, Kind::Call { function, .. } if matches!(&**function, op::AND | op::OR))
}

/// Objects inside of constructed objects bear the name of their place.
fn nested_name(place: &str, value: &Value<'_>) -> Result<(), EvalError> {
    match value {
        Value::Map(Map::Object(name, _)) if **name != *place => Err(EvalError::new(format_args!(
            "unexpected type name \"{name}\", expected \"{place}\", which matches field name path from root Object type"
        ))),
        Value::List(List::Owned(items, _)) => items.iter().try_for_each(|item| nested_name(place, item)),
        Value::Map(Map::Owned(entries)) => entries.values().try_for_each(|item| nested_name(place, item)),
        _ => Ok(()),
    }
}

fn is_attribute(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Ident(_) => true,
        Kind::Select { test, .. } => !test,
        Kind::Call { function, .. } => {
            matches!(&**function, op::INDEX | op::OPT_INDEX | op::OPT_SELECT | op::CONDITIONAL)
        }
        _ => false,
    }
}

/// Whether a chain begins with a conditional, which costs nothing as a base.
fn conditional(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Select { operand, .. } => conditional(operand),
        Kind::Call { function, args, .. } => match &**function {
            op::CONDITIONAL => true,
            op::INDEX | op::OPT_INDEX | op::OPT_SELECT => args.first().is_some_and(conditional),
            _ => false,
        },
        _ => false,
    }
}

/// Whether a node's value is known before it is evaluated: literals, lists and maps of such, and conversions of literals. Upstream
/// computes these once, so they cost nothing.
pub(crate) fn is_constant(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Literal(_) => true,
        Kind::List { elements, optional } => optional.is_empty() && elements.iter().all(is_constant),
        Kind::Map(entries) => entries.iter().all(|e| !e.optional && is_constant(&e.key) && is_constant(&e.value)),
        Kind::Call { function, target: None, args } => {
            let converts = matches!(
                &**function,
                "bytes" | "bool" | "double" | "duration" | "dyn" | "int" | "string" | "timestamp" | "uint"
            );
            converts && matches!(args.as_slice(), [arg] if is_constant(arg))
        }
        _ => false,
    }
}

/// Whether `in` looks into a list that upstream turns into a set beforehand.
fn in_constant_set(expr: &Expr) -> bool {
    let scalar = |e: &Expr| matches!(&e.kind, Kind::Literal(l) if !matches!(l, Literal::Null | Literal::Bytes(_)));
    let Kind::Call { args, .. } = &expr.kind else { return false };
    matches!(args.get(1).map(|e| &e.kind), Some(Kind::List { elements, optional }) if optional.is_empty() && elements.iter().all(scalar))
}

fn literal_value<'a>(literal: &Literal) -> Value<'a> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(n) => Value::Int(*n),
        Literal::Uint(n) => Value::Uint(*n),
        Literal::Double(d) => Value::Double(*d),
        Literal::String(s) => Value::text(s.clone()),
        Literal::Bytes(b) => Value::Bytes(b.clone()),
    }
}

/// A key as messages write it.
fn display(value: &Value<'_>) -> String {
    match value {
        Value::String(s) => s.as_str().to_owned(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Double(d) => d.to_string(),
        other => other.runtime_type().runtime_name(),
    }
}

/// Never called: operators that the evaluator knows itself stand in the tables only for their types.
pub(crate) fn built_in<'a>(_: &mut CallContext<'_>, _: &mut [Value<'a>]) -> Evaluated<'a> {
    Err(EvalError::no_such_overload())
}
