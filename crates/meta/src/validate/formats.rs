//! Formats of strings in custom resources' schemas: those that upstream checks, by the rules of the library it checks them with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

use crate::names;

type Check = fn(&str) -> bool;

/// Names, without dashes, with their checks.
const FORMATS: &[(&str, Check)] = &[
    ("bsonobjectid", |text| text.len() == 24 && is_hex(text)),
    ("byte", |text| !text.is_empty() && STANDARD.decode(text).is_ok()),
    ("cidr", is_cidr),
    ("creditcard", is_credit_card),
    ("date", is_date),
    ("datetime", is_date_time),
    ("duration", is_duration),
    ("email", is_email),
    ("hexcolor", |text| {
        let digits = text.strip_prefix('#').unwrap_or(text);
        matches!(digits.len(), 3 | 6) && is_hex(digits)
    }),
    ("hostname", is_hostname),
    ("ipv4", |text| text.parse::<Ipv4Addr>().is_ok()),
    ("ipv6", |text| text.parse::<Ipv6Addr>().is_ok()),
    ("isbn", |text| is_isbn10(text) || is_isbn13(text)),
    ("isbn10", is_isbn10),
    ("isbn13", is_isbn13),
    ("k8slongname", |text| names::dns1123_subdomain(text).is_empty()),
    ("k8sshortname", |text| names::dns1123_label(text).is_empty()),
    ("mac", is_mac),
    ("password", |_| true),
    ("rgbcolor", is_rgb_color),
    ("ssn", |text| SSN.is_match(text)),
    ("uri", is_uri),
    ("uuid", |text| is_uuid(text, None)),
    ("uuid3", |text| is_uuid(text, Some('3'))),
    ("uuid4", |text| is_uuid(text, Some('4'))),
    ("uuid5", |text| is_uuid(text, Some('5'))),
];

fn find(name: &str) -> Option<Check> {
    let plain = name.replace('-', "");
    FORMATS.iter().find(|(known, _)| *known == plain).map(|(_, check)| *check)
}

/// Whether a format is one that is checked; others are for people.
pub(crate) fn is_known(name: &str) -> bool {
    find(name).is_some()
}

/// Whether a text has a format; one that is not known fits all.
pub(super) fn fits(name: &str, text: &str) -> bool {
    find(name).is_none_or(|check| check(text))
}

#[allow(clippy::expect_used, reason = "constants, which a test compiles")]
fn regex(text: &str) -> Regex {
    Regex::new(text).expect("a good expression")
}

static SSN: LazyLock<Regex> = LazyLock::new(|| regex(r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"));
static CREDIT_CARD: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$",
    )
});
static TIME: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$"));
static DURATION: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)\s*(ns|nsec|nanosecond|nanoseconds|us|µs|μs|usec|microsecond|microseconds|ms|msec|millisecond|milliseconds|s|sec|second|seconds|m|min|minute|minutes|h|hr|hour|hours|d|day|days|w|wk|week|weeks)$",
    )
});

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    prefix.bytes().all(|b| b.is_ascii_digit()) && prefix.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let value = u32::from(digit - b'0');
            let doubled = if at % 2 == 1 { value * 2 } else { value };
            if doubled > 9 { doubled - 9 } else { doubled }
        })
        .sum();
    CREDIT_CARD.is_match(&digits) && sum.is_multiple_of(10)
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((date, time)) = lower.split_once('t') else { return false };
    let Some(parts) = TIME.captures(time) else { return false };
    let part = |at: usize| parts.get(at).and_then(|part| part.as_str().parse::<u8>().ok()).unwrap_or(u8::MAX);
    is_date(date) && part(1) <= 23 && part(2) <= 59 && part(3) <= 59
}

/// Go's durations (`1h30m`), or a number with a unit in words.
fn is_duration(text: &str) -> bool {
    let go = {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        unsigned == "0" || is_go_duration(unsigned)
    };
    go || DURATION.is_match(text)
}

fn is_go_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, unit) = rest.split_at(number);
        if !digits.bytes().any(|b| b.is_ascii_digit()) || digits.matches('.').count() > 1 {
            return false;
        }
        let Some(known) = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].into_iter().find(|u| unit.starts_with(u))
        else {
            return false;
        };
        rest = unit.get(known.len()..).unwrap_or_default();
    }
    !text.is_empty()
}

fn is_email(text: &str) -> bool {
    let address = match text.rfind('<') {
        Some(at) => text.get(at + 1..).and_then(|rest| rest.strip_suffix('>')).unwrap_or_default(),
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii())
    };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.starts_with('[') && domain.ends_with(']');
    (quoted || local.split('.').all(atom)) && (literal || domain.split('.').all(atom))
}

fn is_hostname(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let sign = |c: char| c.is_alphanumeric() || (!c.is_ascii() && !c.is_whitespace()) || "$+<=>^`|~".contains(c);
    let label = |part: &&str| {
        !part.is_empty()
            && part.len() <= 63
            && part.chars().all(|c| sign(c) || c == '-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let top = parts.last().filter(|_| parts.len() > 1);
    parts.iter().all(label) && top.is_none_or(|top| top.chars().count() >= 2 && top.chars().all(char::is_alphabetic))
}

/// The digits of a book's number, with `X` as ten where it may stand.
fn isbn_digits(text: &str) -> Option<Vec<u32>> {
    let plain: Vec<char> = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let last = plain.len().checked_sub(1)?;
    let digit = |(at, c): (usize, &char)| match c {
        'X' if at == last && last == 9 => Some(10),
        _ => c.to_digit(10),
    };
    plain.iter().enumerate().map(digit).collect()
}

fn is_isbn10(text: &str) -> bool {
    isbn_digits(text).is_some_and(|digits| {
        let sum: u32 = (1..).zip(&digits).map(|(at, digit)| at * digit).sum();
        digits.len() == 10 && sum.is_multiple_of(11)
    })
}

fn is_isbn13(text: &str) -> bool {
    isbn_digits(text).is_some_and(|digits| {
        let sum: u32 = digits.iter().enumerate().map(|(at, digit)| if at % 2 == 0 { *digit } else { 3 * digit }).sum();
        digits.len() == 13 && sum.is_multiple_of(10)
    })
}

/// Six, eight or twenty bytes in the three usual ways of writing them.
fn is_mac(text: &str) -> bool {
    let lengths = [6, 8, 20];
    for separator in [':', '-'] {
        let parts: Vec<&str> = text.split(separator).collect();
        if lengths.contains(&parts.len()) && parts.iter().all(|part| part.len() == 2 && is_hex(part)) {
            return true;
        }
    }
    let parts: Vec<&str> = text.split('.').collect();
    lengths.contains(&(parts.len() * 2)) && parts.iter().all(|part| part.len() == 4 && is_hex(part))
}

fn is_rgb_color(text: &str) -> bool {
    let Some(inner) = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')) else { return false };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    let part = |part: &&str| {
        part.bytes().all(|b| b.is_ascii_digit())
            && (part.len() == 1 || !part.starts_with('0'))
            && part.parse::<u8>().is_ok()
    };
    parts.len() == 3 && parts.iter().all(part)
}

/// An absolute URI, or an absolute path.
fn is_uri(text: &str) -> bool {
    let scheme = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let plain = !text.is_empty() && !text.chars().any(|c| c.is_control() || c == ' ');
    let escapes = text.match_indices('%').all(|(at, _)| text.get(at + 1..at + 3).is_some_and(is_hex));
    plain && escapes && (text.starts_with('/') || text.split_once(':').is_some_and(|(name, _)| scheme(name)))
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    if plain.len() != 32 || !is_hex(&plain) {
        return false;
    }
    // A dash may stand or be left out at each of its four places, and nowhere else.
    let mut read = 0;
    for c in text.chars() {
        if c != '-' {
            read += 1;
        } else if ![8, 12, 16, 20].contains(&read) {
            return false;
        }
    }
    let at = |position: usize| plain.chars().nth(position).unwrap_or_default().to_ascii_lowercase();
    let variant = !matches!(version, Some('4' | '5')) || "89ab".contains(at(16));
    !text.contains("--") && version.is_none_or(|version| at(12) == version) && variant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_fit_what_they_name() {
        for (name, good, bad) in [
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f1f77bcf86cd79943901"),
            ("byte", "aGVsbG8=", "a"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("creditcard", "4111-1111-1111-1111", "4111-1111-1111-1112"),
            ("date", "2020-02-29", "2021-02-29"),
            ("date-time", "2014-12-15T19:30:20.000Z", "2014-12-15 19:30:20Z"),
            ("duration", "1h30m", "1x"),
            ("duration", "22 ns", "ns"),
            ("email", "a.b@example.com", "a@"),
            ("hexcolor", "#FFF", "#FFFF"),
            ("hostname", "a-b.example.com", "-a.com"),
            ("ipv4", "1.2.3.4", "1.2.3"),
            ("ipv6", "::1", "1.2.3.4"),
            ("isbn", "978-0321751041", "978-0321751042"),
            ("isbn10", "0321751043", "0321751044"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "A"),
            ("mac", "01:02:03:04:05:06", "01:02:03"),
            ("rgbcolor", "rgb(255, 0,1)", "rgb(256,0,0)"),
            ("ssn", "123-45-6789", "12-345-6789"),
            ("uri", "http://a/b%20c", "a b"),
            ("uuid", "123E4567e89b12d3a456426614174000", "123e4567-e89b-12d3-a456-42661417400"),
            ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
        ] {
            assert!(fits(name, good), "{name} {good}");
            assert!(!fits(name, bad), "{name} {bad}");
        }
        assert!(fits("password", "any") && fits("int32", "any") && !is_known("int32"));
    }
}
