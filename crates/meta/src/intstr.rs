//! `IntOrString`: ports by number or name, amounts absolute or in percent.

use serde_json::Value;
use thiserror::Error;

/// A 32-bit integer or a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrString {
    /// A number.
    Int(i32),
    /// A name or a percentage.
    String(String),
}

/// Why an [`IntOrString`] gives no amount.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IntOrStringError {
    /// The string is no percentage.
    #[error("invalid type: string is not a percentage: {0:?}")]
    NotPercent(String),
}

impl IntOrString {
    /// Reads a JSON value; `None` when it is neither a 32-bit integer nor a string.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::String(text.clone())),
            other => other.as_i64().and_then(|n| i32::try_from(n).ok()).map(Self::Int),
        }
    }

    /// The JSON value.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Int(number) => Value::from(*number),
            Self::String(text) => Value::from(text.as_str()),
        }
    }

    /// The amount out of `total`: a number as it is, a percentage of `total` rounded up or down.
    ///
    /// # Errors
    /// When the string is not digits followed by `%`.
    pub fn scaled(&self, total: i32, round_up: bool) -> Result<i32, IntOrStringError> {
        let text = match self {
            Self::Int(number) => return Ok(*number),
            Self::String(text) => text,
        };
        let percent = text
            .strip_suffix('%')
            .and_then(|n| n.parse::<i32>().ok())
            .ok_or_else(|| IntOrStringError::NotPercent(text.clone()))?;
        let product = i64::from(percent) * i64::from(total);
        let amount = if round_up { -(-product).div_euclid(100) } else { product.div_euclid(100) };
        Ok(amount.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_scale() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(quarter.scaled(10, true), Ok(3));
        assert_eq!(quarter.scaled(10, false), Ok(2));
        assert_eq!(IntOrString::Int(7).scaled(10, true), Ok(7));
        assert!(IntOrString::String("http".into()).scaled(10, true).is_err());
        assert_eq!(IntOrString::from_value(&Value::from(1u64 << 40)), None);
    }
}
