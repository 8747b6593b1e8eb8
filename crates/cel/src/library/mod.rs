//! The functions: each file is a library, each row an overload with its signature and body.

pub(crate) mod authorizer;
mod conversions;
mod format;
mod ip;
mod lists;
pub(crate) mod opaque;
mod operators;
mod optional;
mod quantity;
mod regex;
mod semver;
mod strings;
mod time;
pub(crate) mod url;

use crate::env::Row;
use crate::error::EvalError;
use crate::value::Value;

/// All libraries.
pub(crate) const ROWS: &[&[Row]] = &[
    operators::ROWS,
    conversions::ROWS,
    time::ROWS,
    strings::ROWS,
    lists::ROWS,
    optional::ROWS,
    regex::ROWS,
    url::ROWS,
    quantity::ROWS,
    ip::ROWS,
    semver::ROWS,
    format::ROWS,
    authorizer::ROWS,
];

/// What a body gives.
type Outcome<'a> = Result<Value<'a>, EvalError>;

/// The text of an argument.
fn text<'v>(args: &'v [Value<'_>], i: usize) -> Result<&'v str, EvalError> {
    args.get(i).and_then(Value::as_str).ok_or_else(EvalError::no_such_overload)
}

/// The whole number of an argument.
fn int(args: &[Value<'_>], i: usize) -> Result<i64, EvalError> {
    match args.get(i) {
        Some(Value::Int(n)) => Ok(*n),
        _ => Err(EvalError::no_such_overload()),
    }
}
