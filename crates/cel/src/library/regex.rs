//! Regular expressions.

use super::{Outcome, int, text};
use crate::CallContext;
use crate::env::Row;
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    ("matches", "matches", "(string, string) bool", matches),
    ("matches", "matches_string", "string.(string) bool", matches),
    ("find", "string_find_string", "string.(string) string", find),
    ("findAll", "string_find_all_string", "string.(string) list(string)", find_all),
    ("findAll", "string_find_all_string_int", "string.(string, int) list(string)", find_all),
];

fn matches<'a>(context: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(context.regex(text(args, 1)?)?.is_match(text(args, 0)?)))
}

fn find<'a>(context: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let regex = context.regex(text(args, 1)?)?;
    Ok(Value::text(regex.find(text(args, 0)?).map_or("", |m| m.as_str())))
}

fn find_all<'a>(context: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let limit = if args.len() > 2 { usize::try_from(int(args, 2)?).unwrap_or(usize::MAX) } else { usize::MAX };
    let regex = context.regex(text(args, 1)?)?;
    Ok(Value::list(regex.find_iter(text(args, 0)?).take(limit).map(|m| Value::text(m.as_str())).collect()))
}
