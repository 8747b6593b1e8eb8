//! Times and spans as Go writes them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

const SECOND: i64 = 1_000_000_000;

/// Reads RFC 3339; years 1 to 9999.
pub(crate) fn parse_timestamp(text: &str) -> Option<i128> {
    let bytes = text.as_bytes();
    // Jiff reads more than RFC 3339 does.
    let shaped = bytes.len() >= 20
        && bytes.is_ascii()
        && matches!(bytes[10], b'T' | b't')
        && (text.ends_with(['Z', 'z']) || matches!(bytes[bytes.len() - 6], b'+' | b'-'));
    if !shaped {
        return None;
    }
    let nanos = text.parse::<Timestamp>().ok()?.as_nanosecond();
    in_range(nanos).then_some(nanos)
}

/// Whether a time is within the years 1 to 9999.
pub(crate) fn in_range(nanos: i128) -> bool {
    let seconds = nanos.div_euclid(i128::from(SECOND));
    (-62_135_596_800..=253_402_300_799).contains(&seconds)
}

/// Reads `2006-01-02`.
pub(crate) fn parse_date(text: &str) -> Option<i128> {
    let date: jiff::civil::Date = (text.len() == 10).then(|| text.parse().ok())??;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_nanosecond())
}

/// RFC 3339 in UTC with as many digits as are needed.
pub(crate) fn format_timestamp(nanos: i128) -> String {
    Timestamp::from_nanosecond(nanos).map(|t| t.to_string()).unwrap_or_default()
}

/// A time in a zone: `UTC`, a name, or an offset such as `-08:00`.
pub(crate) fn in_zone(nanos: i128, zone: Option<&str>) -> Option<DateTime> {
    let tz = match zone {
        None | Some("UTC" | "") => TimeZone::UTC,
        Some(text) => match text.find(':') {
            Some(colon) => {
                let hours: i32 = text[..colon].parse().ok()?;
                let minutes: i32 = text[colon + 1..].parse().ok()?;
                let sign = if text.starts_with('-') { -1 } else { 1 };
                let seconds = hours.checked_mul(3600)?.checked_add(sign * minutes.checked_mul(60)?)?;
                TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).ok()?)
            }
            None => TimeZone::get(text).ok()?,
        },
    };
    Some(Zoned::new(Timestamp::from_nanosecond(nanos).ok()?, tz).datetime())
}

/// Reads a span such as `1h30m`, `-1.5s`, `100ms`, as nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = |t: &str| t.len() - t.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole, after) = rest.split_at(digits(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let unit: i128 = match &after[..end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => i128::from(SECOND),
            "m" => 60 * i128::from(SECOND),
            "h" => 3600 * i128::from(SECOND),
            _ => return None,
        };
        rest = &after[end..];
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let mut part = whole.checked_mul(unit)?;
        if let Ok(digits) = fraction.get(..fraction.len().min(18)).unwrap_or_default().parse::<i128>() {
            let scale = 10i128.checked_pow(u32::try_from(fraction.len().min(18)).ok()?)?;
            part = part.checked_add(digits.checked_mul(unit)? / scale)?;
        }
        total = total.checked_add(part)?;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// A span in seconds as CEL writes it: `90s`, `1.5s`.
pub(crate) fn format_duration(nanos: i64) -> String {
    let (sign, abs) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, fraction) = (abs / SECOND.unsigned_abs(), abs % SECOND.unsigned_abs());
    if fraction == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{fraction:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}
