//! Amounts such as `500m`.

use kminik_meta::Quantity;

use super::opaque::Opaque;
use super::{Outcome, text};
use crate::CallContext;
use crate::env::Row;
use crate::error::EvalError;
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    ("quantity", "string_to_quantity", "(string) kubernetes.Quantity", parse),
    ("isQuantity", "is_quantity_string", "(string) bool", |_, args| {
        Ok(text(args, 0)?.parse::<Quantity>().is_ok().into())
    }),
    ("sign", "quantity_sign", "kubernetes.Quantity.() int", |_, args| Ok(Value::Int(get(args, 0)?.sign().into()))),
    ("isGreaterThan", "quantity_is_greater_than", "kubernetes.Quantity.(kubernetes.Quantity) bool", |_, args| {
        Ok(Value::Bool(get(args, 0)? > get(args, 1)?))
    }),
    ("isLessThan", "quantity_is_less_than", "kubernetes.Quantity.(kubernetes.Quantity) bool", |_, args| {
        Ok(Value::Bool(get(args, 0)? < get(args, 1)?))
    }),
    ("compareTo", "quantity_compare_to", "kubernetes.Quantity.(kubernetes.Quantity) int", |_, args| {
        Ok(Value::Int(get(args, 0)?.cmp(&get(args, 1)?) as i64))
    }),
    ("asApproximateFloat", "quantity_get_float", "kubernetes.Quantity.() double", |_, args| {
        Ok(Value::Double(get(args, 0)?.as_f64()))
    }),
    ("asInteger", "quantity_get_int", "kubernetes.Quantity.() int", as_integer),
    ("isInteger", "quantity_is_integer", "kubernetes.Quantity.() bool", |_, args| {
        Ok(Value::Bool(integer(get(args, 0)?).is_some()))
    }),
    ("add", "quantity_add", "kubernetes.Quantity.(kubernetes.Quantity) kubernetes.Quantity", |_, args| {
        sum(args, false)
    }),
    ("add", "quantity_add_int", "kubernetes.Quantity.(int) kubernetes.Quantity", |_, args| sum(args, false)),
    ("sub", "quantity_sub", "kubernetes.Quantity.(kubernetes.Quantity) kubernetes.Quantity", |_, args| sum(args, true)),
    ("sub", "quantity_sub_int", "kubernetes.Quantity.(int) kubernetes.Quantity", |_, args| sum(args, true)),
];

fn get(args: &[Value<'_>], i: usize) -> Result<Quantity, EvalError> {
    match args.get(i) {
        Some(Value::Opaque(Opaque::Quantity(quantity))) => Ok(*quantity),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// The amount when it is a whole number of 64 bits.
fn integer(quantity: Quantity) -> Option<i64> {
    let value = quantity.value();
    (Quantity::new(value, quantity.format()) == quantity).then_some(value)
}

fn parse<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    text(args, 0)?.parse().map(|q| Value::Opaque(Opaque::Quantity(q))).map_err(EvalError::new)
}

fn as_integer<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let value = integer(get(args, 0)?).ok_or_else(|| EvalError::new("cannot convert value to integer"))?;
    Ok(Value::Int(value))
}

fn sum<'a>(args: &[Value<'a>], negative: bool) -> Outcome<'a> {
    let first = get(args, 0)?;
    let second = match args.get(1) {
        Some(Value::Int(n)) => n.to_string().parse::<Quantity>().map_err(EvalError::new)?,
        _ => get(args, 1)?,
    };
    Ok(Value::Opaque(Opaque::Quantity(if negative { first - second } else { first + second })))
}
