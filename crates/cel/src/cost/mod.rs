//! What evaluation costs: [`runtime`] as it happens, [`estimate`] at most, before. Both are upstream's, number by number: which rules
//! may be written and which requests are refused depends on them.

pub(crate) mod estimate;
pub(crate) mod runtime;

/// Making a list.
pub(crate) const LIST: u64 = 10;
/// Making a map.
pub(crate) const MAP: u64 = 30;
/// Making an object.
pub(crate) const STRUCT: u64 = 40;
/// Looking at a character.
pub(crate) const CHAR: f64 = 0.1;
/// Matching with a character of a regular expression.
pub(crate) const REGEX: f64 = 0.25;
/// Asking the authorizer.
pub(crate) const CHECK: u64 = 350_000;
/// The longest name of a format.
pub(crate) const FORMAT_NAME: u64 = 64;
/// The longest regular expression of a named format.
pub(crate) const FORMAT_REGEX: f64 = 128.0;

/// Overloads that tell which of two texts or bytes comes first.
pub(crate) fn is_ordering(overload: &str) -> bool {
    let of = |kind: &str| {
        let operator = overload.strip_suffix(kind);
        matches!(operator, Some("less" | "greater" | "less_equals" | "greater_equals"))
    };
    of("_string") || of("_bytes")
}

/// Overloads that compare values of any kind.
pub(crate) fn is_equality(overload: &str) -> bool {
    matches!(overload, "equals" | "not_equals")
}

/// Functions whose cost is one whatever they are given.
pub(crate) fn is_nominal(function: &str) -> bool {
    const NOMINAL: &[&str] = &[
        "add",
        "allowed",
        "asApproximateFloat",
        "asInteger",
        "compareTo",
        "error",
        "errored",
        "family",
        "format.named",
        "getEscapedPath",
        "getHost",
        "getHostname",
        "getPort",
        "getQuery",
        "getScheme",
        "group",
        "isGlobalUnicast",
        "isGreaterThan",
        "isInteger",
        "isLessThan",
        "isLinkLocalMulticast",
        "isLinkLocalUnicast",
        "isLoopback",
        "isUnspecified",
        "major",
        "masked",
        "minor",
        "name",
        "namespace",
        "patch",
        "path",
        "prefixLength",
        "reason",
        "resource",
        "serviceAccount",
        "sign",
        "sub",
        "subresource",
    ];
    NOMINAL.binary_search(&function).is_ok()
}

/// The rounded-up product.
pub(crate) fn scaled(size: u64, factor: f64) -> u64 {
    // Casts of floats saturate.
    (size as f64 * factor).ceil() as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn nominal_functions_are_found() {
        assert!(super::is_nominal("subresource") && super::is_nominal("add") && super::is_nominal("format.named"));
        assert!(
            super::is_nominal("getEscapedPath") && super::is_nominal("isGreaterThan") && !super::is_nominal("size")
        );
    }
}
