//! Conversions between types.

use super::Outcome;
use super::opaque::Opaque;
use crate::CallContext;
use crate::env::Row;
use crate::error::EvalError;
use crate::time;
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    ("type", "type", "(A) type(A)", type_of),
    ("dyn", "to_dyn", "(A) dyn", same),
    ("bool", "bool_to_bool", "(bool) bool", same),
    ("bool", "string_to_bool", "(string) bool", to_bool),
    ("bytes", "bytes_to_bytes", "(bytes) bytes", same),
    ("bytes", "string_to_bytes", "(string) bytes", to_bytes),
    ("double", "double_to_double", "(double) double", same),
    ("double", "int64_to_double", "(int) double", to_double),
    ("double", "string_to_double", "(string) double", to_double),
    ("double", "uint64_to_double", "(uint) double", to_double),
    ("duration", "duration_to_duration", "(duration) duration", same),
    ("duration", "int64_to_duration", "(int) duration", to_duration),
    ("duration", "string_to_duration", "(string) duration", to_duration),
    ("int", "int64_to_int64", "(int) int", same),
    ("int", "double_to_int64", "(double) int", to_int),
    ("int", "duration_to_int64", "(duration) int", to_int),
    ("int", "string_to_int64", "(string) int", to_int),
    ("int", "timestamp_to_int64", "(timestamp) int", to_int),
    ("int", "uint64_to_int64", "(uint) int", to_int),
    ("string", "string_to_string", "(string) string", same),
    ("string", "bool_to_string", "(bool) string", to_string),
    ("string", "bytes_to_string", "(bytes) string", to_string),
    ("string", "double_to_string", "(double) string", to_string),
    ("string", "duration_to_string", "(duration) string", to_string),
    ("string", "int64_to_string", "(int) string", to_string),
    ("string", "timestamp_to_string", "(timestamp) string", to_string),
    ("string", "uint64_to_string", "(uint) string", to_string),
    ("string", "ip_to_string", "(net.IP) string", to_string),
    ("string", "cidr_to_string", "(net.CIDR) string", to_string),
    ("timestamp", "timestamp_to_timestamp", "(timestamp) timestamp", same),
    ("timestamp", "int64_to_timestamp", "(int) timestamp", to_timestamp),
    ("timestamp", "string_to_timestamp", "(string) timestamp", to_timestamp),
    ("uint", "uint64_to_uint64", "(uint) uint", same),
    ("uint", "double_to_uint64", "(double) uint", to_uint),
    ("uint", "int64_to_uint64", "(int) uint", to_uint),
    ("uint", "string_to_uint64", "(string) uint", to_uint),
];

fn first<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v Value<'a>, EvalError> {
    args.first().ok_or_else(EvalError::no_such_overload)
}

fn same<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    first(args).cloned()
}

fn type_of<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    Ok(Value::Type(first(args)?.runtime_type()))
}

fn conversion(value: &Value<'_>, to: &str) -> EvalError {
    let shown = value.as_str().map_or_else(|| value.runtime_type().runtime_name(), str::to_owned);
    EvalError::new(format_args!("type conversion error from '{shown}' to '{to}'"))
}

fn to_bool<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match args.first().and_then(Value::as_str) {
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(Value::Bool(true)),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(Value::Bool(false)),
        _ => Err(conversion(first(args)?, "bool")),
    }
}

fn to_bytes<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bytes(super::text(args, 0)?.as_bytes().into()))
}

fn to_double<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match first(args)? {
        Value::Int(n) => Ok(Value::Double(*n as f64)),
        Value::Uint(n) => Ok(Value::Double(*n as f64)),
        value => match value.as_str().and_then(|s| s.parse().ok()) {
            Some(d) => Ok(Value::Double(d)),
            None => Err(EvalError::new(format_args!(
                "strconv.ParseFloat: parsing \"{}\": invalid syntax",
                value.as_str().unwrap_or_default()
            ))),
        },
    }
}

fn to_duration<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match first(args)? {
        Value::Int(n) => Ok(Value::Duration(*n)),
        value => value
            .as_str()
            .and_then(time::parse_duration)
            .map(Value::Duration)
            .ok_or_else(|| conversion(value, "duration")),
    }
}

fn integer_range() -> EvalError {
    EvalError::new("integer overflow")
}

fn to_int<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    Ok(Value::Int(match first(args)? {
        Value::Double(d) if *d > -9.223372036854775e18 && *d < 9.223372036854775e18 => *d as i64,
        Value::Double(_) => return Err(integer_range()),
        Value::Duration(n) => *n,
        Value::Timestamp(n) => i64::try_from(n.div_euclid(1_000_000_000)).map_err(|_| integer_range())?,
        Value::Uint(n) => i64::try_from(*n).map_err(|_| integer_range())?,
        value => {
            let text = value.as_str().ok_or_else(EvalError::no_such_overload)?;
            text.parse()
                .map_err(|_| EvalError::new(format_args!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))?
        }
    }))
}

fn to_uint<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let range = || EvalError::new("unsigned integer overflow");
    Ok(Value::Uint(match first(args)? {
        Value::Double(d) if *d >= 0.0 && *d < 1.844674407370955e19 => *d as u64,
        Value::Double(_) => return Err(range()),
        Value::Int(n) => u64::try_from(*n).map_err(|_| range())?,
        value => {
            let text = value.as_str().ok_or_else(EvalError::no_such_overload)?;
            text.parse()
                .map_err(|_| EvalError::new(format_args!("strconv.ParseUint: parsing \"{text}\": invalid syntax")))?
        }
    }))
}

fn to_timestamp<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match first(args)? {
        Value::Int(n) => {
            let nanos = i128::from(*n) * 1_000_000_000;
            if time::in_range(nanos) { Ok(Value::Timestamp(nanos)) } else { Err(EvalError::new("timestamp overflow")) }
        }
        value => value
            .as_str()
            .and_then(time::parse_timestamp)
            .map(Value::Timestamp)
            .ok_or_else(|| conversion(value, "timestamp")),
    }
}

fn to_string<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    Ok(Value::text(match first(args)? {
        Value::Bool(b) => b.to_string(),
        Value::Bytes(b) => String::from_utf8(b.to_vec())
            .map_err(|_| EvalError::new("invalid UTF-8 in bytes, cannot convert to string"))?,
        Value::Double(d) => double(*d),
        Value::Duration(n) => time::format_duration(*n),
        Value::Int(n) => n.to_string(),
        Value::Timestamp(n) => time::format_timestamp(*n),
        Value::Uint(n) => n.to_string(),
        Value::Opaque(Opaque::Ip(ip)) => ip.to_string(),
        Value::Opaque(Opaque::Cidr(net)) => net.to_string(),
        _ => return Err(EvalError::no_such_overload()),
    }))
}

/// A double in the fewest digits, with an exponent where Go writes one.
pub(super) fn double(d: f64) -> String {
    if d.is_nan() {
        return "NaN".into();
    }
    if d.is_infinite() {
        return if d > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    if d != 0.0 && !(1e-4..1e21).contains(&d.abs()) {
        let text = format!("{d:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    d.to_string()
}
