//! Ingresses and network policies: what is accepted as it always was, but not said in the best way.

use std::net::IpAddr;

use kminik_meta::{Object, Path, field::quote, names};
use serde_json::Value;

use crate::registry::strategy::{Strategy, StrategyContext};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Ingresses.
pub(crate) struct Ingresses;

impl Strategy for Ingresses {
    fn warnings(&self, _ctx: &StrategyContext<'_>, old: Option<&Object>, ingress: &Object) -> Vec<String> {
        if old.is_some() || ingress.annotation(CLASS_ANNOTATION).is_none() {
            return Vec::new();
        }
        let annotation = quote(CLASS_ANNOTATION);
        vec![format!("annotation {annotation} is deprecated, please use 'spec.ingressClassName' instead")]
    }
}

/// Network policies.
pub(crate) struct NetworkPolicies;

impl Strategy for NetworkPolicies {
    fn warnings(&self, _ctx: &StrategyContext<'_>, _old: Option<&Object>, policy: &Object) -> Vec<String> {
        let mut warnings = Vec::new();
        for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
            for (i, rule) in policy.array(&["spec", rules]).iter().enumerate() {
                for (j, peer) in rule[peers].as_array().into_iter().flatten().enumerate() {
                    let path = Path::new("spec").child(rules).index(i).child(peers).index(j).child("ipBlock");
                    let block = &peer["ipBlock"];
                    warnings.extend(range_warning(&path.child("cidr"), &block["cidr"]));
                    let except = block["except"].as_array().into_iter().flatten().enumerate();
                    warnings
                        .extend(except.filter_map(|(k, range)| range_warning(&path.child("except").index(k), range)));
                }
            }
        }
        warnings
    }
}

/// What is to be said of a range with bits beyond its prefix, or not in its canonical form.
fn range_warning(path: &Path, value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let (address, prefix) = names::parse_cidr(text)?;
    let network = names::network(address, prefix);
    if network != address {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let (range, one) = (quote(&format!("{network}/{prefix}")), quote(&format!("{address}/{whole}")));
        let text = quote(text);
        return Some(format!("{path}: CIDR value {text} is ambiguous in this context (should be {range} or {one}?)"));
    }
    let canonical = format!("{network}/{prefix}");
    if matches!(address, IpAddr::V6(_)) && canonical != text {
        let (text, canonical) = (quote(text), quote(&canonical));
        return Some(format!("{path}: IPv6 CIDR value {text} should be in RFC 5952 canonical format ({canonical})"));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ambiguous_ranges_are_told() {
        let path = Path::new("cidr");
        assert_eq!(range_warning(&path, &json!("10.0.0.0/8")), None);
        assert_eq!(
            range_warning(&path, &json!("10.0.0.1/8")).unwrap(),
            "cidr: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)"
        );
        assert!(range_warning(&path, &json!("FD00::/16")).unwrap().contains("(\"fd00::/16\")"));
    }
}
