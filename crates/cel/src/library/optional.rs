//! Optional values.

use std::sync::Arc;

use super::Outcome;
use crate::CallContext;
use crate::ast::op;
use crate::env::Row;
use crate::error::EvalError;
use crate::eval::built_in;
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    ("optional.of", "optional_of", "(A) optional(A)", of),
    ("optional.ofNonZeroValue", "optional_ofNonZeroValue", "(A) optional(A)", of_non_zero),
    ("optional.none", "optional_none", "() optional(A)", |_, _| Ok(Value::Optional(None))),
    ("value", "optional_value", "optional(A).() A", value),
    ("hasValue", "optional_hasValue", "optional(A).() bool", has_value),
    ("or", "optional_or_optional", "optional(A).(optional(A)) optional(A)", built_in),
    ("orValue", "optional_orValue_value", "optional(A).(A) A", built_in),
    (op::OPT_SELECT, "select_optional_field", "(dyn, string) optional(A)", built_in),
    (op::OPT_INDEX, "list_optindex_optional_int", "(list(A), int) optional(A)", built_in),
    (op::OPT_INDEX, "optional_list_optindex_optional_int", "(optional(list(A)), int) optional(A)", built_in),
    (op::OPT_INDEX, "map_optindex_optional_value", "(map(A, B), A) optional(B)", built_in),
    (op::OPT_INDEX, "optional_map_optindex_optional_value", "(optional(map(A, B)), A) optional(B)", built_in),
    ("first", "list_first", "list(A).() optional(A)", |_, args| end(args, false)),
    ("last", "list_last", "list(A).() optional(A)", |_, args| end(args, true)),
    ("optional.unwrap", "optional_unwrap", "(list(optional(A))) list(A)", unwrap),
    ("unwrapOpt", "optional_unwrapOpt", "list(optional(A)).() list(A)", unwrap),
];

fn of<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    Ok(Value::Optional(args.first().cloned().map(Arc::new)))
}

fn of_non_zero<'a>(context: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let zero = match args.first() {
        Some(Value::Null) => true,
        Some(Value::Bool(b)) => !b,
        Some(Value::Int(n)) => *n == 0,
        Some(Value::Uint(n)) => *n == 0,
        Some(Value::Double(d)) => *d == 0.0,
        Some(Value::Duration(n)) => *n == 0,
        Some(Value::Optional(inner)) => inner.is_none(),
        Some(Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_)) => args[0].size() == Some(0),
        _ => false,
    };
    if zero { Ok(Value::Optional(None)) } else { of(context, args) }
}

fn value<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(Some(inner))] => Ok((**inner).clone()),
        _ => Err(EvalError::new("optional.none() dereference")),
    }
}

fn has_value<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(inner)] => Ok(Value::Bool(inner.is_some())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn end<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let Some(Value::List(list)) = args.first() else { return Err(EvalError::no_such_overload()) };
    let index = if last { list.len().wrapping_sub(1) } else { 0 };
    Ok(Value::Optional(list.get(index).transpose()?.map(Arc::new)))
}

fn unwrap<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let Some(Value::List(list)) = args.first() else { return Err(EvalError::no_such_overload()) };
    let mut found = Vec::new();
    for item in list.iter() {
        match item? {
            Value::Optional(Some(inner)) => found.push((*inner).clone()),
            Value::Optional(None) => {}
            _ => return Err(EvalError::no_such_overload()),
        }
    }
    Ok(Value::list(found))
}
