//! Resource quantities: exact decimal amounts with the suffixes and the canonical form of upstream's `resource.Quantity`.

use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde_json::Value;
use thiserror::Error;

/// Number of decimal digits kept behind the point; smaller parts round away from zero.
const NANO_DIGITS: i32 = 9;
const NANO: i128 = 1_000_000_000;
/// Binary quantities are capped here, as upstream caps them.
const MAX_BINARY: i128 = i64::MAX as i128 * NANO;

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12e6`.
    DecimalExponent,
    /// `12Mi`.
    BinarySi,
    /// `12M`.
    #[default]
    DecimalSi,
}

/// Why a text is no quantity; the words are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// The shape is wrong.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is none of those known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An exact amount with a preferred way of writing it.
///
/// Amounts are whole multiples of 10⁻⁹ and saturate at about ±1.7·10²⁹. Comparison looks at the amount alone: `1Gi` equals
/// `1024Mi`. Printing gives the canonical form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

const DECIMAL: &[(&str, i32)] =
    &[("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: &[&str] = &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// The amount zero.
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    /// A whole number.
    pub fn new(value: i64, format: Format) -> Self {
        Self { nano: i128::from(value) * NANO, format }
    }

    /// A number of thousandths.
    pub fn from_milli(value: i64) -> Self {
        Self { nano: i128::from(value) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// A number of bytes.
    pub fn from_bytes(value: i64) -> Self {
        Self::new(value, Format::BinarySi)
    }

    /// Reads a JSON string or number; `None` for other types.
    pub fn from_value(value: &Value) -> Option<Result<Self, QuantityError>> {
        match value {
            Value::String(text) => Some(text.parse()),
            Value::Number(number) => Some(number.to_string().parse()),
            _ => None,
        }
    }

    /// The amount rounded up to a whole number, capped to 64 bits.
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// The amount in thousandths, rounded up, capped to 64 bits.
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// The amount as a floating point number; may lose precision.
    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    /// The amount with at most three digits behind the point, rounded away from zero.
    #[must_use]
    pub fn round_up_to_milli(mut self) -> Self {
        let unit = NANO / 1000;
        let magnitude = self.nano.abs();
        let rounded = magnitude.div_euclid(unit) + i128::from(magnitude % unit != 0);
        self.nano = self.nano.signum() * rounded.saturating_mul(unit);
        self
    }

    /// Whether the amount is zero.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nano.signum() as i32
    }

    /// How it prefers to be written.
    pub fn format(&self) -> Format {
        self.format
    }

    fn scaled(&self, unit: i128) -> i64 {
        let rounded = -((-self.nano).div_euclid(unit));
        rounded.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    fn write_decimal(&self, f: &mut fmt::Formatter<'_>, exponents: bool) -> fmt::Result {
        let (mut mantissa, mut exponent) = (self.nano, -NANO_DIGITS);
        while mantissa % 1000 == 0 {
            mantissa /= 1000;
            exponent += 3;
        }
        if exponents {
            return if exponent == 0 { write!(f, "{mantissa}") } else { write!(f, "{mantissa}e{exponent}") };
        }
        while exponent > 18 {
            mantissa *= 1000;
            exponent -= 3;
        }
        let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(s, _)| s);
        write!(f, "{mantissa}{suffix}")
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        match self.format {
            Format::DecimalSi => self.write_decimal(f, false),
            Format::DecimalExponent => self.write_decimal(f, true),
            // Small and fractional binary amounts are written in decimal so that nothing is rounded away.
            Format::BinarySi if self.nano.abs() < 1024 * NANO || self.nano % NANO != 0 => self.write_decimal(f, false),
            Format::BinarySi => {
                let (mut mantissa, mut power) = (self.nano / NANO, 0);
                while mantissa % 1024 == 0 && power + 1 < BINARY.len() {
                    mantissa /= 1024;
                    power += 1;
                }
                write!(f, "{mantissa}{}", BINARY.get(power).copied().unwrap_or_default())
            }
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            None => return Err(QuantityError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let digits = |t: &str| t.len() - t.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole, rest) = rest.split_at(digits(rest));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits(rest)),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(if suffix_is_shaped(suffix) { QuantityError::Numeric } else { QuantityError::Format });
        }
        if !suffix_is_shaped(suffix) {
            return Err(QuantityError::Format);
        }
        let (base, exponent, mut format) = interpret(suffix).ok_or(QuantityError::Suffix)?;
        let unit = Unit { base, exponent };
        let mut nano = unit.apply(whole, fraction);
        if format == Format::BinarySi {
            nano = nano.min(MAX_BINARY);
            if nano > 0 && nano < NANO {
                format = Format::DecimalSi;
            }
        }
        Ok(Self { nano: if negative { -nano } else { nano }, format })
    }
}

struct Unit {
    base: i128,
    exponent: i32,
}

impl Unit {
    /// The amount of `whole.fraction` in this unit in 10⁻⁹, rounded up, saturating.
    fn apply(&self, whole: &str, fraction: &str) -> i128 {
        let fraction = fraction.trim_end_matches('0');
        let joined = format!("{whole}{fraction}");
        let joined = joined.trim_start_matches('0');
        if joined.is_empty() {
            return 0;
        }
        let mut scale = NANO_DIGITS - i32::try_from(fraction.len()).unwrap_or(i32::MAX);
        let mut factor = 1i128;
        if self.base == 10 {
            scale = scale.saturating_add(self.exponent);
        } else {
            factor = 1i128 << self.exponent;
        }
        // More digits than an amount can hold below 10⁻⁹ only decide whether to round up.
        let (kept, dropped) = if scale < 0 {
            let cut = joined.len().saturating_sub(scale.unsigned_abs() as usize);
            (&joined[..cut], joined[cut..].bytes().any(|b| b != b'0'))
        } else {
            (joined, false)
        };
        if factor > 1 && scale < 0 {
            // A binary unit multiplies before the cut, so that no digit is lost that the unit would lift above 10⁻⁹.
            let (Ok(all), Some(divisor)) = (joined.parse::<i128>(), 10i128.checked_pow(scale.unsigned_abs())) else {
                return i128::from(!kept.is_empty()) * MAX_BINARY + i128::from(kept.is_empty());
            };
            let product = all.saturating_mul(factor);
            return product / divisor + i128::from(product % divisor != 0);
        }
        let number = if kept.is_empty() { Some(0) } else { kept.parse::<i128>().ok() };
        let power = if scale > 0 { 10i128.checked_pow(scale.unsigned_abs()) } else { Some(1) };
        match (number, power) {
            (Some(number), Some(power)) => {
                number.saturating_mul(power).saturating_mul(factor).saturating_add(i128::from(dropped))
            }
            _ => i128::MAX,
        }
    }
}

fn suffix_is_shaped(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

fn interpret(suffix: &str) -> Option<(i128, i32, Format)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some((10, *exponent, Format::DecimalSi));
    }
    if let Some(power) = BINARY.iter().skip(1).position(|s| *s == suffix) {
        return Some((2, 10 * (i32::try_from(power).ok()? + 1), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    Some((10, exponent.parse().ok()?, Format::DecimalExponent))
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl AddAssign for Quantity {
    /// Adds; zero takes over the other's way of writing.
    fn add_assign(&mut self, other: Self) {
        if self.nano == 0 {
            self.format = other.format;
        }
        self.nano = self.nano.saturating_add(other.nano);
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self += -other;
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        self -= other;
        self
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nano: self.nano.saturating_neg(), format: self.format }
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().unwrap().to_string()
    }

    #[test]
    fn canonical_forms_are_upstreams() {
        let cases = [
            ("0", "0"),
            ("0Mi", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("512Ki", "512Ki"),
            ("1000Ki", "1000Ki"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("0.001Ki", "1024m"),
            ("0.0001Mi", "104857600u"),
            ("1k", "1k"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("123456789", "123456789"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e6", "12e6"),
            ("1e4", "10e3"),
            ("1E", "1E"),
            ("+5", "5"),
            ("-5", "-5"),
            ("-1.5Gi", "-1536Mi"),
            ("001", "1"),
            (".5", "500m"),
            ("1.", "1"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("1.1n", "2n"),
            ("9223372036854775807", "9223372036854775807"),
            ("100Ei", "9223372036854775807"),
            ("8Ei", "9223372036854775807"),
            ("2.5Mi", "2560Ki"),
        ];
        for (text, want) in cases {
            assert_eq!(canonical(text), want, "{text}");
        }
    }

    #[test]
    fn malformed_texts_are_refused() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("1.1.M", QuantityError::Format),
            ("1+1.0M", QuantityError::Format),
            ("1 ", QuantityError::Format),
            ("0.1mi", QuantityError::Suffix),
            ("0.1am", QuantityError::Format),
            ("1K", QuantityError::Suffix),
            ("1KiB", QuantityError::Format),
            ("Mi", QuantityError::Numeric),
            ("1e", QuantityError::Suffix),
        ] {
            assert_eq!(text.parse::<Quantity>(), Err(error), "{text}");
        }
    }

    #[test]
    fn amounts_add_compare_and_round_up() {
        let a: Quantity = "1Gi".parse().unwrap();
        let b: Quantity = "1024Mi".parse().unwrap();
        assert_eq!(a, b);
        assert_eq!((a + b).to_string(), "2Gi");
        assert_eq!((Quantity::ZERO + a).to_string(), "1Gi");
        assert_eq!((a - b).to_string(), "0");
        let cpu: Quantity = "1500m".parse().unwrap();
        assert_eq!((cpu.value(), cpu.milli_value()), (2, 1500));
        assert_eq!(Quantity::from_milli(250).to_string(), "250m");
        assert!("2".parse::<Quantity>().unwrap() > cpu);
        assert_eq!([cpu, cpu].into_iter().sum::<Quantity>().to_string(), "3");
    }

    #[test]
    fn hostile_exponents_saturate() {
        assert!("1e999999999".parse::<Quantity>().unwrap().sign() == 1);
        assert_eq!(canonical("1e-999999999"), "1e-9");
        assert!(format!("{}Mi", "9".repeat(500)).parse::<Quantity>().is_ok());
        assert!(format!("0.{}1Mi", "0".repeat(500)).parse::<Quantity>().is_ok());
    }
}
