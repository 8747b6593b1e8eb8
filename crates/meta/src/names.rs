//! Checks of names, keys and label values. Each returns upstream's messages; none means that the value is fine.

use std::net::IpAddr;

/// Largest length of a DNS label, a label value and the name part of a qualified name.
pub const LABEL_MAX: usize = 63;
/// Largest length of a DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn max_len(length: usize) -> String {
    format!("must be no more than {length} characters")
}

/// The message for a value outside `low..=high`.
pub fn inclusive_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A message that names the pattern a value should match, with examples.
pub fn pattern_message(message: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{pattern}')");
    }
    let list: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{pattern}')", list.join(" or "))
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// Non-empty, `edge` at both ends, `inner` between.
fn shaped(text: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => edge(*one),
        [first, middle @ .., last] => edge(*first) && edge(*last) && middle.iter().all(|b| inner(*b)),
    }
}

fn is_label(text: &str) -> bool {
    shaped(text, lower_alnum, |b| lower_alnum(b) || b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_qualified_part(text: &str) -> bool {
    shaped(text, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A DNS-1123 label: the names of namespaces, containers, volumes and ports of many kinds.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(max_len(LABEL_MAX));
    }
    if !is_label(value) {
        if is_subdomain(value) {
            errors.push("must not contain dots".into());
        } else {
            errors.push(pattern_message(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                DNS1123_LABEL,
                &["my-name", "123-abc"],
            ));
        }
    }
    errors
}

/// A DNS-1123 subdomain: the names of most objects.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(max_len(SUBDOMAIN_MAX));
    }
    if !is_subdomain(value) {
        errors.push(pattern_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN,
            &["example.com"],
        ));
    }
    errors
}

/// A DNS-1123 subdomain behind `*.`: wildcard hosts of ingress rules.
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(max_len(SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        errors.push(pattern_message(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{DNS1123_SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    errors
}

/// A DNS-1035 label: the names of Services.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(max_len(LABEL_MAX));
    }
    if !is_label(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        errors.push(pattern_message(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// A qualified name `[prefix/]name`: the keys of labels and annotations, and resource names.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".into());
            } else {
                errors.extend(dns1123_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        _ => {
            return vec![
                pattern_message(
                    "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
                    QUALIFIED,
                    &["MyName", "my.name", "123-abc"],
                ) + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            ];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        errors.push(format!("name part {}", max_len(LABEL_MAX)));
    }
    if !is_qualified_part(name) {
        errors.push(format!(
            "name part {}",
            pattern_message(
                "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
                QUALIFIED,
                &["MyName", "my.name", "123-abc"],
            )
        ));
    }
    errors
}

/// A label's value.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(max_len(LABEL_MAX));
    }
    if !value.is_empty() && !is_qualified_part(value) {
        errors.push(pattern_message(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(max_len(SUBDOMAIN_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        errors.push(pattern_message(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." => errors.push("must not be '.'".into()),
        ".." => errors.push("must not be '..'".into()),
        other if other.starts_with("..") => errors.push("must not start with '..'".into()),
        _ => {}
    }
    errors
}

/// The name of an environment variable, by the relaxed rule that is in force since 1.34.
pub fn env_var_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.is_empty() {
        errors.push("environment variable name must be non-empty".into());
    }
    if value.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        errors.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        );
    }
    errors
}

/// The name of a port (IANA service name).
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors: Vec<String> = Vec::new();
    if value.len() > 15 {
        errors.push(max_len(15));
    }
    if value.is_empty() || !value.bytes().all(|b| lower_alnum(b) || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".into());
    }
    errors
}

/// The number of a port.
pub fn port_number(value: i64) -> Vec<String> {
    in_range(value, 1, 65535)
}

/// A number in `low..=high`.
pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) { Vec::new() } else { vec![inclusive_range(low, high)] }
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![pattern_message(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A percentage such as `25%`.
pub fn percent(value: &str) -> Vec<String> {
    if value.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
        return Vec::new();
    }
    vec![pattern_message(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// An IP address in its one canonical form.
pub fn ip_address(value: &str) -> Vec<String> {
    let Ok(address) = value.parse::<IpAddr>() else {
        let zeros = without_zeros(value).is_some_and(|text| text.parse::<IpAddr>().is_ok());
        let message = if zeros {
            "must not have leading 0s"
        } else {
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        };
        return vec![message.into()];
    };
    if is_mapped(&address) {
        return vec!["must not be an IPv4-mapped IPv6 address".into()];
    }
    canonical(value, &address.to_string())
}

/// A range of IP addresses in its one canonical form: no bits beyond its prefix.
pub fn cidr(value: &str) -> Vec<String> {
    let Some((address, prefix)) = parse_cidr(value) else {
        let zeros = value.split_once('/').and_then(|(address, prefix)| {
            let prefix = prefix.trim_start_matches('0');
            let prefix = if prefix.is_empty() { "0" } else { prefix };
            parse_cidr(&format!("{}/{prefix}", without_zeros(address).unwrap_or_else(|| address.to_owned())))
        });
        let message = match zeros {
            Some(_) => "must not have leading 0s in IP or prefix length",
            None => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        };
        return vec![message.into()];
    };
    if is_mapped(&address) {
        return vec!["must not have an IPv4-mapped IPv6 address".into()];
    }
    if network(address, prefix) != address {
        return vec!["must not have bits set beyond the prefix length".into()];
    }
    canonical(value, &format!("{address}/{prefix}"))
}

/// The address and the length of the prefix of a text such as `10.9.8.0/24`; the address may have bits beyond the prefix.
pub fn parse_cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = value.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let plain = prefix.len() == 1 || !prefix.starts_with('0');
    let length: u8 = Some(prefix).filter(|p| plain && p.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (length <= most).then_some((address, length))
}

/// The first address of the range that has this address in it.
pub fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or_default();
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or_default();
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

fn is_mapped(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// An IPv4 address with leading zeros, without them.
fn without_zeros(value: &str) -> Option<String> {
    let octet = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u8>().ok()).flatten();
    let octets: Option<Vec<u8>> = value.split('.').map(octet).collect();
    octets.filter(|o| o.len() == 4).map(|o| o.iter().map(u8::to_string).collect::<Vec<_>>().join("."))
}

fn canonical(value: &str, wanted: &str) -> Vec<String> {
    if value == wanted {
        Vec::new()
    } else {
        vec![format!("must be in canonical form ({})", crate::field::quote(wanted))]
    }
}

/// A domain and a path behind it, such as `acme.io/foo`: the messages, each with the part it is about.
pub fn domain_prefixed_path(value: &str) -> Vec<(&str, String)> {
    let parts = value.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty());
    let Some((domain, path)) = parts else {
        return vec![(value, "must be a domain-prefixed path (such as \"acme.io/foo\")".into())];
    };
    let mut errors: Vec<_> = dns1123_subdomain(domain).into_iter().map(|message| (domain, message)).collect();
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        errors.push((path, pattern_message("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[])));
    }
    errors
}

/// Words that look like identifiers and are none in CEL.
pub const CEL_RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// An identifier as in C.
pub fn c_identifier(value: &str) -> Vec<String> {
    let start = |c: char| c.is_ascii_alphabetic() || c == '_';
    if value.starts_with(start) && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Vec::new();
    }
    vec![pattern_message(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// The reason of a condition.
pub fn condition_reason(value: &str) -> Vec<String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b',' | b':');
    let edge = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.bytes().all(inner)
        && value.bytes().next_back().is_some_and(edge);
    if good {
        return Vec::new();
    }
    vec![pattern_message(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
    )]
}

/// A name that is one segment of a URL path: RBAC roles and bindings, and custom resources of some kinds.
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains() {
        for good in ["a", "a-b", "0", "a1", &"a".repeat(63)] {
            assert!(dns1123_label(good).is_empty(), "{good}");
        }
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        for bad in ["", "-a", "a-", "a..b", "a_b", "ä"] {
            assert!(!dns1123_subdomain(bad).is_empty(), "{bad}");
        }
        assert!(dns1123_subdomain("a.b-c.d").is_empty());
        assert!(!dns1035_label("0a").is_empty());
        assert!(wildcard_dns1123_subdomain("*.a.b").is_empty());
    }

    #[test]
    fn keys_and_values() {
        for good in ["a", "A.b_c-d", "example.com/Name"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/").len(), 2);
        assert_eq!(qualified_name("a/b/c").len(), 1);
        assert!(label_value("").is_empty() && label_value("a_b").is_empty());
        assert!(!label_value("-a").is_empty() && !label_value("a b").is_empty());
        assert_eq!(config_map_key(".."), ["must not be '..'"]);
        assert!(config_map_key("..data").len() == 1 && config_map_key("").len() == 1);
        assert!(env_var_name("1=2").len() == 1 && env_var_name("1x").is_empty());
        assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
        assert!(percent("5%").is_empty() && percent("%").len() == 1);
        assert_eq!(path_segment("a/b%"), ["may not contain '/'", "may not contain '%'"]);
        assert!(condition_reason("MinimumReplicasAvailable").is_empty() && condition_reason("a b").len() == 1);
        assert_eq!(condition_reason("").len() + condition_reason("A:").len(), 2);
    }

    #[test]
    fn addresses_and_ranges() {
        for good in ["10.9.8.7", "2001:db8::ffff", "::"] {
            assert!(ip_address(good).is_empty(), "{good}");
        }
        for (bad, part) in [
            ("10.9.8", "must be a valid IP address"),
            ("010.9.8.7", "must not have leading 0s"),
            ("2001:DB8::1", "must be in canonical form (\"2001:db8::1\")"),
            ("::ffff:1.2.3.4", "must not be an IPv4-mapped"),
        ] {
            assert!(ip_address(bad)[0].starts_with(part), "{bad}: {:?}", ip_address(bad));
        }
        for good in ["10.9.8.0/24", "0.0.0.0/0", "2001:db8::/64", "10.0.0.1/32"] {
            assert!(cidr(good).is_empty(), "{good}: {:?}", cidr(good));
        }
        for (bad, part) in [
            ("10.9.8.0", "must be a valid CIDR"),
            ("10.9.8.0/33", "must be a valid CIDR"),
            ("10.9.8.0/+8", "must be a valid CIDR"),
            ("10.9.8.0/024", "must not have leading 0s in IP"),
            ("10.09.8.0/24", "must not have leading 0s in IP"),
            ("10.9.8.1/24", "must not have bits set beyond"),
        ] {
            assert!(cidr(bad)[0].starts_with(part), "{bad}: {:?}", cidr(bad));
        }
        assert!(domain_prefixed_path("acme.io/foo").is_empty());
        assert_eq!(domain_prefixed_path("acme.io").len() + domain_prefixed_path("A/b c").len(), 3);
    }
}
