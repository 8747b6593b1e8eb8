//! Lists: Kubernetes' library, upstream's extension of version 3, and sets.

use std::cmp::Ordering;

use super::{Outcome, int};
use crate::CallContext;
use crate::ast::op;
use crate::env::Row;
use crate::error::EvalError;
use crate::value::{List, Value};

pub(super) const ROWS: &[Row] = &[
    ("isSorted", "list_int_is_sorted_bool", "list(int).() bool", is_sorted),
    ("isSorted", "list_uint_is_sorted_bool", "list(uint).() bool", is_sorted),
    ("isSorted", "list_double_is_sorted_bool", "list(double).() bool", is_sorted),
    ("isSorted", "list_bool_is_sorted_bool", "list(bool).() bool", is_sorted),
    ("isSorted", "list_string_is_sorted_bool", "list(string).() bool", is_sorted),
    ("isSorted", "list_bytes_is_sorted_bool", "list(bytes).() bool", is_sorted),
    ("isSorted", "list_timestamp_is_sorted_bool", "list(timestamp).() bool", is_sorted),
    ("isSorted", "list_duration_is_sorted_bool", "list(duration).() bool", is_sorted),
    ("sum", "list_int_sum_int", "list(int).() int", |_, args| sum(args, Value::Int(0))),
    ("sum", "list_uint_sum_uint", "list(uint).() uint", |_, args| sum(args, Value::Uint(0))),
    ("sum", "list_double_sum_double", "list(double).() double", |_, args| sum(args, Value::Double(0.0))),
    ("sum", "list_duration_sum_duration", "list(duration).() duration", |_, args| sum(args, Value::Duration(0))),
    ("max", "list_int_max_int", "list(int).() int", max),
    ("max", "list_uint_max_uint", "list(uint).() uint", max),
    ("max", "list_double_max_double", "list(double).() double", max),
    ("max", "list_bool_max_bool", "list(bool).() bool", max),
    ("max", "list_string_max_string", "list(string).() string", max),
    ("max", "list_bytes_max_bytes", "list(bytes).() bytes", max),
    ("max", "list_timestamp_max_timestamp", "list(timestamp).() timestamp", max),
    ("max", "list_duration_max_duration", "list(duration).() duration", max),
    ("min", "list_int_min_int", "list(int).() int", min),
    ("min", "list_uint_min_uint", "list(uint).() uint", min),
    ("min", "list_double_min_double", "list(double).() double", min),
    ("min", "list_bool_min_bool", "list(bool).() bool", min),
    ("min", "list_string_min_string", "list(string).() string", min),
    ("min", "list_bytes_min_bytes", "list(bytes).() bytes", min),
    ("min", "list_timestamp_min_timestamp", "list(timestamp).() timestamp", min),
    ("min", "list_duration_min_duration", "list(duration).() duration", min),
    ("indexOf", "list_a_index_of_int", "list(A).(A) int", |_, args| position(args, false)),
    ("lastIndexOf", "list_a_last_index_of_int", "list(A).(A) int", |_, args| position(args, true)),
    ("slice", "list_slice", "list(A).(int, int) list(A)", slice),
    ("flatten", "list_flatten", "list(list(A)).() list(A)", flatten),
    ("flatten", "list_flatten_int", "list(dyn).(int) list(dyn)", flatten),
    ("sort", "list_int_sort", "list(int).() list(int)", sort),
    ("sort", "list_uint_sort", "list(uint).() list(uint)", sort),
    ("sort", "list_double_sort", "list(double).() list(double)", sort),
    ("sort", "list_bool_sort", "list(bool).() list(bool)", sort),
    ("sort", "list_duration_sort", "list(duration).() list(duration)", sort),
    ("sort", "list_timestamp_sort", "list(timestamp).() list(timestamp)", sort),
    ("sort", "list_string_sort", "list(string).() list(string)", sort),
    ("sort", "list_bytes_sort", "list(bytes).() list(bytes)", sort),
    (op::SORT_BY_KEYS, "list_int_sortByAssociatedKeys", "list(A).(list(int)) list(A)", sort),
    (op::SORT_BY_KEYS, "list_uint_sortByAssociatedKeys", "list(A).(list(uint)) list(A)", sort),
    (op::SORT_BY_KEYS, "list_double_sortByAssociatedKeys", "list(A).(list(double)) list(A)", sort),
    (op::SORT_BY_KEYS, "list_bool_sortByAssociatedKeys", "list(A).(list(bool)) list(A)", sort),
    (op::SORT_BY_KEYS, "list_duration_sortByAssociatedKeys", "list(A).(list(duration)) list(A)", sort),
    (op::SORT_BY_KEYS, "list_timestamp_sortByAssociatedKeys", "list(A).(list(timestamp)) list(A)", sort),
    (op::SORT_BY_KEYS, "list_string_sortByAssociatedKeys", "list(A).(list(string)) list(A)", sort),
    (op::SORT_BY_KEYS, "list_bytes_sortByAssociatedKeys", "list(A).(list(bytes)) list(A)", sort),
    ("lists.range", "lists_range", "(int) list(int)", range),
    ("reverse", "list_reverse", "list(A).() list(A)", reverse),
    ("distinct", "list_distinct", "list(A).() list(A)", distinct),
    ("sets.contains", "list_sets_contains_list", "(list(A), list(A)) bool", |_, args| {
        sets(args, |a, b| includes(a, b))
    }),
    ("sets.equivalent", "list_sets_equivalent_list", "(list(A), list(A)) bool", |_, args| {
        sets(args, |a, b| includes(a, b) && includes(b, a))
    }),
    ("sets.intersects", "list_sets_intersects_list", "(list(A), list(A)) bool", |_, args| {
        sets(args, |a, b| a.iter().any(|x| b.iter().any(|y| x.equals(y))))
    }),
];

/// Elements one call may make.
const MAX_RESULT: usize = 1 << 20;

fn list<'v, 'a>(args: &'v [Value<'a>], i: usize) -> Result<&'v List<'a>, EvalError> {
    match args.get(i) {
        Some(Value::List(list)) => Ok(list),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn compare<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Ordering, EvalError> {
    a.compare(b).ok_or_else(EvalError::no_such_overload)
}

fn is_sorted<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let items = list(args, 0)?.to_vec()?;
    for pair in items.windows(2) {
        if let [a, b] = pair
            && compare(a, b)?.is_gt()
        {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(args: &[Value<'a>], zero: Value<'a>) -> Outcome<'a> {
    let mut total = zero;
    let overflow = |kind: &str| EvalError::new(format_args!("{kind} overflow"));
    for item in list(args, 0)?.iter() {
        total = match (total, item?) {
            (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(b).ok_or_else(|| overflow("integer"))?),
            (Value::Uint(a), Value::Uint(b)) => {
                Value::Uint(a.checked_add(b).ok_or_else(|| overflow("unsigned integer"))?)
            }
            (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
            (Value::Duration(a), Value::Duration(b)) => {
                Value::Duration(a.checked_add(b).ok_or_else(|| overflow("duration"))?)
            }
            // Of a list whose type is not known, the first element decides.
            (Value::Int(0), other @ (Value::Double(_) | Value::Uint(_) | Value::Duration(_))) => other,
            _ => return Err(EvalError::no_such_overload()),
        };
    }
    Ok(total)
}

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Outcome<'a> {
    let mut best: Option<Value<'a>> = None;
    for item in list(args, 0)?.iter() {
        let item = item?;
        best = Some(match best {
            Some(best) if compare(&item, &best)? != wanted => best,
            _ => item,
        });
    }
    best.ok_or_else(|| EvalError::new(format_args!("{name} called on empty list")))
}

fn max<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    extreme(args, "max", Ordering::Greater)
}

fn min<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    extreme(args, "min", Ordering::Less)
}

fn position<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let items = list(args, 0)?.to_vec()?;
    let wanted = args.get(1).ok_or_else(EvalError::no_such_overload)?;
    let found =
        if last { items.iter().rposition(|i| i.equals(wanted)) } else { items.iter().position(|i| i.equals(wanted)) };
    Ok(Value::Int(found.map_or(-1, |i| i64::try_from(i).unwrap_or(i64::MAX))))
}

fn slice<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let (items, start, end) = (list(args, 0)?, int(args, 1)?, int(args, 2)?);
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let fail = |why: &str| Err(EvalError::new(format_args!("cannot slice({start}, {end}), {why}")));
    if start < 0 || end < 0 {
        return fail("negative indexes not supported");
    }
    if start > end {
        return fail("start index must be less than or equal to end index");
    }
    if length < end {
        return fail(&format!("list is length {length}"));
    }
    let indexes = usize::try_from(start).unwrap_or_default()..usize::try_from(end).unwrap_or_default();
    Ok(Value::list(indexes.filter_map(|i| items.get(i)).collect::<Result<_, _>>()?))
}

fn flatten<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let depth = if args.len() > 1 { int(args, 1)? } else { 1 };
    if depth < 0 {
        return Err(EvalError::new("level must be non-negative"));
    }
    let mut items = list(args, 0)?.to_vec()?;
    for _ in 0..depth {
        if !items.iter().any(|i| matches!(i, Value::List(_))) {
            break;
        }
        let mut flat = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Value::List(inner) => flat.extend(inner.to_vec()?),
                other => flat.push(other),
            }
            if flat.len() > MAX_RESULT {
                return Err(EvalError::CostLimit);
            }
        }
        items = flat;
    }
    Ok(Value::list(items))
}

/// Sorts a list by itself, or by a list of keys beside it.
fn sort<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let items = list(args, 0)?.to_vec()?;
    let keys = if args.len() > 1 { list(args, 1)?.to_vec()? } else { items.clone() };
    if items.len() != keys.len() {
        return Err(EvalError::new(format_args!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            items.len(),
            keys.len()
        )));
    }
    if let Some(first) = keys.first() {
        if first.compare(first).is_none() {
            return Err(EvalError::new("list elements must be comparable"));
        }
        if keys.iter().any(|k| k.runtime_type() != first.runtime_type()) {
            return Err(EvalError::new("list elements must have the same type"));
        }
    }
    let mut order: Vec<(Value<'a>, Value<'a>)> = keys.into_iter().zip(items).collect();
    order.sort_by(|(a, _), (b, _)| a.compare(b).unwrap_or(Ordering::Equal));
    Ok(Value::list(order.into_iter().map(|(_, item)| item).collect()))
}

fn range<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let count = int(args, 0)?;
    if count > i64::try_from(MAX_RESULT).unwrap_or(i64::MAX) {
        return Err(EvalError::CostLimit);
    }
    Ok(Value::list((0..count).map(Value::Int).collect()))
}

fn reverse<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let mut items = list(args, 0)?.to_vec()?;
    items.reverse();
    Ok(Value::list(items))
}

fn distinct<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let mut unique: Vec<Value<'a>> = Vec::new();
    for item in list(args, 0)?.iter() {
        let item = item?;
        if !unique.iter().any(|u| u.equals(&item)) {
            unique.push(item);
        }
    }
    Ok(Value::list(unique))
}

fn includes<'a>(all: &[Value<'a>], some: &[Value<'a>]) -> bool {
    some.iter().all(|s| all.iter().any(|a| a.equals(s)))
}

fn sets<'a>(args: &[Value<'a>], holds: fn(&[Value<'a>], &[Value<'a>]) -> bool) -> Outcome<'a> {
    Ok(Value::Bool(holds(&list(args, 0)?.to_vec()?, &list(args, 1)?.to_vec()?)))
}
