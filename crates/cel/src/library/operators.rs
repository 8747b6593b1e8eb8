//! The operators, `size`, `in`, and what comprehensions expand to.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Outcome;
use crate::CallContext;
use crate::ast::op;
use crate::env::Row;
use crate::error::EvalError;
use crate::eval::built_in;
use crate::value::{Key, Map, Value};

pub(super) const ROWS: &[Row] = &[
    (op::AND, "logical_and", "(bool, bool) bool", built_in),
    (op::OR, "logical_or", "(bool, bool) bool", built_in),
    (op::NOT, "logical_not", "(bool) bool", not),
    (op::NOT_STRICTLY_FALSE, "not_strictly_false", "(bool) bool", built_in),
    (op::CONDITIONAL, "conditional", "(bool, A, A) A", built_in),
    (op::EQUALS, "equals", "(A, A) bool", equals),
    (op::NOT_EQUALS, "not_equals", "(A, A) bool", not_equals),
    (op::INDEX, "index_list", "(list(A), int) A", built_in),
    (op::INDEX, "index_map", "(map(A, B), A) B", built_in),
    (op::INDEX, "optional_list_index_int", "(optional(list(A)), int) optional(A)", built_in),
    (op::INDEX, "optional_map_index_value", "(optional(map(A, B)), A) optional(B)", built_in),
    (op::IN, "in_list", "(A, list(A)) bool", in_list),
    (op::IN, "in_map", "(A, map(A, B)) bool", in_map),
    (op::NEGATE, "negate_int64", "(int) int", negate),
    (op::NEGATE, "negate_double", "(double) double", negate),
    (op::ADD, "add_bytes", "(bytes, bytes) bytes", add),
    (op::ADD, "add_double", "(double, double) double", arithmetic::<'+'>),
    (op::ADD, "add_duration_duration", "(duration, duration) duration", add),
    (op::ADD, "add_duration_timestamp", "(duration, timestamp) timestamp", add),
    (op::ADD, "add_timestamp_duration", "(timestamp, duration) timestamp", add),
    (op::ADD, "add_int64", "(int, int) int", arithmetic::<'+'>),
    (op::ADD, "add_list", "(list(A), list(A)) list(A)", add),
    (op::ADD, "add_string", "(string, string) string", add),
    (op::ADD, "add_uint64", "(uint, uint) uint", arithmetic::<'+'>),
    (op::SUBTRACT, "subtract_double", "(double, double) double", arithmetic::<'-'>),
    (op::SUBTRACT, "subtract_int64", "(int, int) int", arithmetic::<'-'>),
    (op::SUBTRACT, "subtract_uint64", "(uint, uint) uint", arithmetic::<'-'>),
    (op::SUBTRACT, "subtract_duration_duration", "(duration, duration) duration", subtract),
    (op::SUBTRACT, "subtract_timestamp_duration", "(timestamp, duration) timestamp", subtract),
    (op::SUBTRACT, "subtract_timestamp_timestamp", "(timestamp, timestamp) duration", subtract),
    (op::MULTIPLY, "multiply_double", "(double, double) double", arithmetic::<'*'>),
    (op::MULTIPLY, "multiply_int64", "(int, int) int", arithmetic::<'*'>),
    (op::MULTIPLY, "multiply_uint64", "(uint, uint) uint", arithmetic::<'*'>),
    (op::DIVIDE, "divide_double", "(double, double) double", arithmetic::<'/'>),
    (op::DIVIDE, "divide_int64", "(int, int) int", arithmetic::<'/'>),
    (op::DIVIDE, "divide_uint64", "(uint, uint) uint", arithmetic::<'/'>),
    (op::MODULO, "modulo_int64", "(int, int) int", arithmetic::<'%'>),
    (op::MODULO, "modulo_uint64", "(uint, uint) uint", arithmetic::<'%'>),
    (op::LESS, "less_bool", "(bool, bool) bool", less),
    (op::LESS, "less_int64", "(int, int) bool", less),
    (op::LESS, "less_int64_double", "(int, double) bool", less),
    (op::LESS, "less_int64_uint64", "(int, uint) bool", less),
    (op::LESS, "less_uint64", "(uint, uint) bool", less),
    (op::LESS, "less_uint64_double", "(uint, double) bool", less),
    (op::LESS, "less_uint64_int64", "(uint, int) bool", less),
    (op::LESS, "less_double", "(double, double) bool", less),
    (op::LESS, "less_double_int64", "(double, int) bool", less),
    (op::LESS, "less_double_uint64", "(double, uint) bool", less),
    (op::LESS, "less_string", "(string, string) bool", less),
    (op::LESS, "less_bytes", "(bytes, bytes) bool", less),
    (op::LESS, "less_timestamp", "(timestamp, timestamp) bool", less),
    (op::LESS, "less_duration", "(duration, duration) bool", less),
    (op::LESS_EQUALS, "less_equals_bool", "(bool, bool) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_int64", "(int, int) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_int64_double", "(int, double) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_int64_uint64", "(int, uint) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_uint64", "(uint, uint) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_uint64_double", "(uint, double) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_uint64_int64", "(uint, int) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_double", "(double, double) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_double_int64", "(double, int) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_double_uint64", "(double, uint) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_string", "(string, string) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_bytes", "(bytes, bytes) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_timestamp", "(timestamp, timestamp) bool", less_equals),
    (op::LESS_EQUALS, "less_equals_duration", "(duration, duration) bool", less_equals),
    (op::GREATER, "greater_bool", "(bool, bool) bool", greater),
    (op::GREATER, "greater_int64", "(int, int) bool", greater),
    (op::GREATER, "greater_int64_double", "(int, double) bool", greater),
    (op::GREATER, "greater_int64_uint64", "(int, uint) bool", greater),
    (op::GREATER, "greater_uint64", "(uint, uint) bool", greater),
    (op::GREATER, "greater_uint64_double", "(uint, double) bool", greater),
    (op::GREATER, "greater_uint64_int64", "(uint, int) bool", greater),
    (op::GREATER, "greater_double", "(double, double) bool", greater),
    (op::GREATER, "greater_double_int64", "(double, int) bool", greater),
    (op::GREATER, "greater_double_uint64", "(double, uint) bool", greater),
    (op::GREATER, "greater_string", "(string, string) bool", greater),
    (op::GREATER, "greater_bytes", "(bytes, bytes) bool", greater),
    (op::GREATER, "greater_timestamp", "(timestamp, timestamp) bool", greater),
    (op::GREATER, "greater_duration", "(duration, duration) bool", greater),
    (op::GREATER_EQUALS, "greater_equals_bool", "(bool, bool) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_int64", "(int, int) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_int64_double", "(int, double) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_int64_uint64", "(int, uint) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_uint64", "(uint, uint) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_uint64_double", "(uint, double) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_uint64_int64", "(uint, int) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_double", "(double, double) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_double_int64", "(double, int) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_double_uint64", "(double, uint) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_string", "(string, string) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_bytes", "(bytes, bytes) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_timestamp", "(timestamp, timestamp) bool", greater_equals),
    (op::GREATER_EQUALS, "greater_equals_duration", "(duration, duration) bool", greater_equals),
    ("size", "size_bytes", "(bytes) int", size),
    ("size", "bytes_size", "bytes.() int", size),
    ("size", "size_list", "(list(A)) int", size),
    ("size", "list_size", "list(A).() int", size),
    ("size", "size_map", "(map(A, B)) int", size),
    ("size", "map_size", "map(A, B).() int", size),
    ("size", "size_string", "(string) int", size),
    ("size", "string_size", "string.() int", size),
    (op::MAP_INSERT, "@mapInsert_map_key_value", "(map(A, B), A, B) map(A, B)", insert),
    (op::MAP_INSERT, "@mapInsert_map_map", "(map(A, B), map(A, B)) map(A, B)", insert),
];

fn not<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(b)] => Ok(Value::Bool(!*b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn equals<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match args {
        [a, b] => Ok(Value::Bool(a.equals(b))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn not_equals<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match args {
        [a, b] => Ok(Value::Bool(!a.equals(b))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn ordered<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    match args {
        // Not-a-number is in no order with anything.
        [a, b] => Ok(Value::Bool(a.compare(b).is_some_and(holds))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn less<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_lt)
}

fn less_equals<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_le)
}

fn greater<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_gt)
}

fn greater_equals<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_ge)
}

fn in_list<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let [value, Value::List(list)] = args else { return Err(EvalError::no_such_overload()) };
    for item in list.iter() {
        if item?.equals(value) {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn in_map<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let [value, Value::Map(map)] = args else { return Err(EvalError::no_such_overload()) };
    Ok(Value::Bool(Key::of(value).is_some_and(|key| map.get(&key).is_some())))
}

fn overflow(kind: &str) -> EvalError {
    EvalError::new(format_args!("{kind} overflow"))
}

fn negate<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(n)] => n.checked_neg().map(Value::Int).ok_or_else(|| overflow("integer")),
        [Value::Double(d)] => Ok(Value::Double(-*d)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn arithmetic<'a, const SIGN: char>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_) | Value::Uint(_), Value::Int(0) | Value::Uint(0)] if SIGN == '/' => {
            Err(EvalError::new("division by zero"))
        }
        [Value::Int(_) | Value::Uint(_), Value::Int(0) | Value::Uint(0)] if SIGN == '%' => {
            Err(EvalError::new("modulus by zero"))
        }
        [Value::Int(a), Value::Int(b)] => {
            let result = match SIGN {
                '+' => a.checked_add(*b),
                '-' => a.checked_sub(*b),
                '*' => a.checked_mul(*b),
                '/' => a.checked_div(*b),
                _ => a.checked_rem(*b),
            };
            result.map(Value::Int).ok_or_else(|| overflow("integer"))
        }
        [Value::Uint(a), Value::Uint(b)] => {
            let result = match SIGN {
                '+' => a.checked_add(*b),
                '-' => a.checked_sub(*b),
                '*' => a.checked_mul(*b),
                '/' => a.checked_div(*b),
                _ => a.checked_rem(*b),
            };
            result.map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
        }
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(match SIGN {
            '+' => *a + *b,
            '-' => *a - *b,
            '*' => *a * *b,
            _ => *a / *b,
        })),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn timestamp<'a>(nanos: i128) -> Outcome<'a> {
    if crate::time::in_range(nanos) { Ok(Value::Timestamp(nanos)) } else { Err(overflow("timestamp")) }
}

fn add<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(a), Value::String(b)] => Ok(Value::text([a.as_str(), b.as_str()].concat())),
        [Value::Bytes(a), Value::Bytes(b)] => Ok(Value::Bytes([&**a, &**b].concat().into())),
        [first @ Value::List(_), Value::List(b)] => match std::mem::replace(first, Value::Null) {
            Value::List(a) => a.concat(b).map(Value::List),
            _ => Err(EvalError::no_such_overload()),
        },
        [Value::Duration(a), Value::Duration(b)] => {
            a.checked_add(*b).map(Value::Duration).ok_or_else(|| overflow("duration"))
        }
        [Value::Timestamp(t), Value::Duration(d)] | [Value::Duration(d), Value::Timestamp(t)] => {
            timestamp(*t + i128::from(*d))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn subtract<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Duration(a), Value::Duration(b)] => {
            a.checked_sub(*b).map(Value::Duration).ok_or_else(|| overflow("duration"))
        }
        [Value::Timestamp(t), Value::Duration(d)] => timestamp(*t - i128::from(*d)),
        [Value::Timestamp(a), Value::Timestamp(b)] => {
            i64::try_from(*a - *b).map(Value::Duration).map_err(|_| overflow("duration"))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn size<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let size = args.first().and_then(Value::size).ok_or_else(EvalError::no_such_overload)?;
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn insert<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let Some((first, rest)) = args.split_first_mut() else { return Err(EvalError::no_such_overload()) };
    let Value::Map(Map::Owned(entries)) = std::mem::replace(first, Value::Null) else {
        return Err(EvalError::no_such_overload());
    };
    let mut entries = Arc::try_unwrap(entries).unwrap_or_else(|shared| (*shared).clone());
    let mut put = |key: Key<'a>, value: Value<'a>| {
        let shown = key.value();
        match entries.insert(key, value) {
            None => Ok(()),
            Some(_) => Err(EvalError::new(format_args!(
                "insert failed: key {} already exists",
                shown.as_str().unwrap_or_default()
            ))),
        }
    };
    match rest {
        [key, value] => put(Key::of(key).ok_or_else(EvalError::no_such_overload)?, value.clone())?,
        [Value::Map(other)] => {
            for key in other.keys() {
                if let Some(value) = other.get(&key) {
                    put(key, value?)?;
                }
            }
        }
        _ => return Err(EvalError::no_such_overload()),
    }
    Ok(Value::Map(Map::Owned(Arc::new(entries))))
}
