//! Timestamps as Kubernetes writes them: `Time` in whole seconds, `MicroTime` with six digits, always UTC.

use jiff::{SignedDuration, Timestamp};

/// Parses RFC 3339 with any offset and any number of fraction digits; `None` when malformed or empty.
pub fn parse(text: &str) -> Option<Timestamp> {
    if text.len() < 20 || text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    text.parse().ok()
}

/// Writes a `Time`: `2024-01-02T03:04:05Z`, fractions of a second cut off.
pub fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Writes a `MicroTime`: `2024-01-02T03:04:05.000006Z`.
pub fn format_micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// The present, as a `Time`.
pub fn now() -> String {
    format(Timestamp::now())
}

/// The present, as a `MicroTime`.
pub fn now_micro() -> String {
    format_micro(Timestamp::now())
}

/// An age as kubectl prints it: `5s`, `3m4s`, `10m`, `2h5m`, `9h`, `3d4h`, `20d`, `2y3d`, `9y`; `<invalid>` when more than a
/// second in the future.
pub fn human_duration(age: SignedDuration) -> String {
    let seconds = age.as_secs();
    if seconds < -1 {
        return "<invalid>".into();
    }
    if seconds < 0 {
        return "0s".into();
    }
    if seconds < 60 * 2 {
        return format!("{seconds}s");
    }
    let minutes = seconds / 60;
    let with_rest = |whole: i64, unit: char, rest: i64, rest_unit: char| {
        if rest == 0 { format!("{whole}{unit}") } else { format!("{whole}{unit}{rest}{rest_unit}") }
    };
    if minutes < 10 {
        return with_rest(minutes, 'm', seconds % 60, 's');
    }
    if minutes < 60 * 3 {
        return format!("{minutes}m");
    }
    let hours = minutes / 60;
    if hours < 8 {
        return with_rest(hours, 'h', minutes % 60, 'm');
    }
    if hours < 48 {
        return format!("{hours}h");
    }
    let days = hours / 24;
    if hours < 24 * 8 {
        return with_rest(days, 'd', hours % 24, 'h');
    }
    if hours < 24 * 365 * 2 {
        return format!("{days}d");
    }
    let years = hours / 24 / 365;
    if hours < 24 * 365 * 8 {
        return with_rest(years, 'y', days % 365, 'd');
    }
    format!("{years}y")
}

/// The age of `since` at `now` as kubectl prints it; `<unknown>` when there is no time.
pub fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or_else(|| "<unknown>".into(), |since| human_duration(now.duration_since(since)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip() {
        let time = parse("2024-01-02T04:04:05.1234567+01:00").unwrap();
        assert_eq!(format(time), "2024-01-02T03:04:05Z");
        assert_eq!(format_micro(time), "2024-01-02T03:04:05.123456Z");
        assert_eq!(parse("yesterday"), None);
        assert_eq!(parse("2024-01-02"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn ages_print_like_kubectl() {
        let cases = [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (184, "3m4s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (3 * 86_400 + 7200, "3d2h"),
            (8 * 86_400, "8d"),
            (729 * 86_400, "729d"),
            (733 * 86_400, "2y3d"),
            (3000 * 86_400, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
    }
}
