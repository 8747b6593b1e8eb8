//! Sizes and times as users type them.

use std::time::Duration;

use crate::reason::{
    Failure, MK_USAGE, Outcome, RSRC_INSUFFICIENT_CORES, RSRC_INSUFFICIENT_REQ_MEMORY, RSRC_INSUFFICIENT_SYS_MEMORY,
};

/// The least memory a node works with, MiB.
const LEAST_MEMORY_MIB: u64 = 256;

/// Cores from `N`, `max` or `no-limit` (0).
pub fn cpus(text: &str) -> Outcome<u32> {
    let available = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    match text {
        "max" => Ok(available),
        "no-limit" => Ok(0),
        _ => match text.parse::<u32>() {
            Ok(0) | Err(_) => {
                Err(Failure::new(&MK_USAGE, format!("--cpus={text} is not a number of cores, max or no-limit")))
            }
            Ok(n) if n > available => Err(Failure::new(
                &RSRC_INSUFFICIENT_CORES,
                format!("{n} cores were asked for, this machine has {available}"),
            )),
            Ok(n) => Ok(n),
        },
    }
}

/// MiB from `4g`, `3900mb`, `512Mi`, a plain number of MiB, `max` or `no-limit` (0).
pub fn memory_mib(text: &str) -> Outcome<u64> {
    let available = total_memory_mib();
    let mib = match text {
        "max" => return Ok(available),
        "no-limit" => return Ok(0),
        _ => parse_mib(text).ok_or_else(|| {
            Failure::new(&MK_USAGE, format!("--memory={text} is not a size such as 2g, 4096mb, max or no-limit"))
        })?,
    };
    if mib < LEAST_MEMORY_MIB {
        return Err(Failure::new(
            &RSRC_INSUFFICIENT_REQ_MEMORY,
            format!("{mib} MiB were asked for, a node needs {LEAST_MEMORY_MIB} MiB"),
        ));
    }
    if available > 0 && mib > available {
        return Err(Failure::new(
            &RSRC_INSUFFICIENT_SYS_MEMORY,
            format!("{mib} MiB were asked for, this machine has {available} MiB"),
        ));
    }
    Ok(mib)
}

fn parse_mib(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let number: u64 = lower[..split].parse().ok()?;
    let bytes: u64 = match &lower[split..] {
        "" | "m" | "mb" | "mi" | "mib" => return Some(number),
        "b" => number,
        "k" | "kb" | "ki" | "kib" => number.checked_mul(1 << 10)?,
        "g" | "gb" | "gi" | "gib" => number.checked_mul(1 << 30)?,
        "t" | "tb" | "ti" | "tib" => number.checked_mul(1 << 40)?,
        _ => return None,
    };
    Some(bytes >> 20)
}

/// Bytes of what may grow to a size: as [`memory_mib`] takes them, `None` for `no-limit`.
pub fn limit_bytes(text: &str) -> Outcome<Option<u64>> {
    match parse_mib(text) {
        Some(mib) if mib > 0 => Ok(Some(mib << 20)),
        _ if text == "no-limit" => Ok(None),
        _ => Err(Failure::new(&MK_USAGE, format!("{text:?} is not a size such as 20g, 500m or no-limit"))),
    }
}

/// Of the machine, 0 if it cannot be told.
pub fn total_memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}

/// Go's durations: `90s`, `1m30s`, `2h`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration such as 30s or 6m");
    let mut rest = text;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad()),
            };
        rest = &rest[end..];
    }
    if text.is_empty() || total > 1e10 { Err(bad()) } else { Ok(Duration::from_secs_f64(total)) }
}

/// As [`duration`], of a certificate's life: a minute or more, for renewing takes a moment too.
pub fn expiration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        life if life < Duration::from_secs(60) => Err(format!("{text:?} is less than a minute")),
        // rcgen's years have four digits.
        life if life > Duration::from_secs(100 * 365 * 86_400) => Err(format!("{text:?} is more than a hundred years")),
        life => Ok(life),
    }
}

/// A time as Go writes it, to the second: `1h0m5s`, `4m59s`, `0s`.
pub fn go_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_mib("4g"), Some(4096));
        assert_eq!(parse_mib("3900MB"), Some(3900));
        assert_eq!(parse_mib("2048"), Some(2048));
        assert_eq!(parse_mib("1Gi"), Some(1024));
        assert_eq!(parse_mib("12x"), None);
        assert_eq!(parse_mib("99999999999t"), None);
        assert_eq!(limit_bytes("2g").unwrap(), Some(2 << 30));
        assert_eq!(limit_bytes("no-limit").unwrap(), None);
        assert!(limit_bytes("0").is_err() && limit_bytes("-1").is_err());
        assert_eq!(memory_mib("20").unwrap_err().reason.id, "RSRC_INSUFFICIENT_REQ_MEMORY");
        assert_eq!(memory_mib("9000t").unwrap_err().reason.id, "RSRC_INSUFFICIENT_SYS_MEMORY");
        assert_eq!(cpus("9999").unwrap_err().reason.id, "RSRC_INSUFFICIENT_CORES");
        assert_eq!(cpus("x").unwrap_err().reason.id, "MK_USAGE");
    }

    #[test]
    fn durations() {
        assert_eq!(duration("6m").unwrap(), Duration::from_secs(360));
        assert_eq!(duration("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(expiration("26280h").unwrap().as_secs(), 94_608_000);
        assert!(expiration("59s").is_err() && expiration("1000000h").is_err());
        for text in ["0s", "59s", "5m0s", "1h0m5s"] {
            assert_eq!(go_duration(duration(text).unwrap()), text);
        }
        for bad in ["", "5", "m", "5x", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
