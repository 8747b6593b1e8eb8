//! Parts of times and spans.

use jiff::civil::DateTime;

use super::Outcome;
use crate::env::Row;
use crate::error::EvalError;
use crate::time::in_zone;
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    ("getFullYear", "timestamp_to_year", "timestamp.() int", |_, args| part(args, |t| t.year().into())),
    ("getFullYear", "timestamp_to_year_with_tz", "timestamp.(string) int", |_, args| part(args, |t| t.year().into())),
    ("getMonth", "timestamp_to_month", "timestamp.() int", |_, args| part(args, |t| i64::from(t.month()) - 1)),
    ("getMonth", "timestamp_to_month_with_tz", "timestamp.(string) int", |_, args| {
        part(args, |t| i64::from(t.month()) - 1)
    }),
    ("getDayOfYear", "timestamp_to_day_of_year", "timestamp.() int", |_, args| {
        part(args, |t| i64::from(t.day_of_year()) - 1)
    }),
    ("getDayOfYear", "timestamp_to_day_of_year_with_tz", "timestamp.(string) int", |_, args| {
        part(args, |t| i64::from(t.day_of_year()) - 1)
    }),
    ("getDayOfMonth", "timestamp_to_day_of_month", "timestamp.() int", |_, args| {
        part(args, |t| i64::from(t.day()) - 1)
    }),
    ("getDayOfMonth", "timestamp_to_day_of_month_with_tz", "timestamp.(string) int", |_, args| {
        part(args, |t| i64::from(t.day()) - 1)
    }),
    ("getDate", "timestamp_to_day_of_month_1_based", "timestamp.() int", |_, args| part(args, |t| t.day().into())),
    ("getDate", "timestamp_to_day_of_month_1_based_with_tz", "timestamp.(string) int", |_, args| {
        part(args, |t| t.day().into())
    }),
    ("getDayOfWeek", "timestamp_to_day_of_week", "timestamp.() int", |_, args| part(args, weekday)),
    ("getDayOfWeek", "timestamp_to_day_of_week_with_tz", "timestamp.(string) int", |_, args| part(args, weekday)),
    ("getHours", "timestamp_to_hours", "timestamp.() int", |_, args| part(args, |t| t.hour().into())),
    ("getHours", "timestamp_to_hours_with_tz", "timestamp.(string) int", |_, args| part(args, |t| t.hour().into())),
    ("getHours", "duration_to_hours", "duration.() int", |_, args| span(args, 3_600_000_000_000)),
    ("getMinutes", "timestamp_to_minutes", "timestamp.() int", |_, args| part(args, |t| t.minute().into())),
    ("getMinutes", "timestamp_to_minutes_with_tz", "timestamp.(string) int", |_, args| {
        part(args, |t| t.minute().into())
    }),
    ("getMinutes", "duration_to_minutes", "duration.() int", |_, args| span(args, 60_000_000_000)),
    ("getSeconds", "timestamp_to_seconds", "timestamp.() int", |_, args| part(args, |t| t.second().into())),
    ("getSeconds", "timestamp_to_seconds_tz", "timestamp.(string) int", |_, args| part(args, |t| t.second().into())),
    ("getSeconds", "duration_to_seconds", "duration.() int", |_, args| span(args, 1_000_000_000)),
    ("getMilliseconds", "timestamp_to_milliseconds", "timestamp.() int", |_, args| {
        part(args, |t| t.millisecond().into())
    }),
    ("getMilliseconds", "timestamp_to_milliseconds_with_tz", "timestamp.(string) int", |_, args| {
        part(args, |t| t.millisecond().into())
    }),
    ("getMilliseconds", "duration_to_milliseconds", "duration.() int", |_, args| span(args, 1_000_000)),
];

fn weekday(t: DateTime) -> i64 {
    t.weekday().to_sunday_zero_offset().into()
}

fn part<'a>(args: &[Value<'a>], read: fn(DateTime) -> i64) -> Outcome<'a> {
    let Some(Value::Timestamp(nanos)) = args.first() else { return Err(EvalError::no_such_overload()) };
    let zone = args.get(1).and_then(Value::as_str);
    let unknown = || EvalError::new(format_args!("unknown time zone {}", zone.unwrap_or_default()));
    in_zone(*nanos, zone).map(|t| Value::Int(read(t))).ok_or_else(unknown)
}

fn span<'a>(args: &[Value<'a>], unit: i64) -> Outcome<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / unit)),
        _ => Err(EvalError::no_such_overload()),
    }
}
