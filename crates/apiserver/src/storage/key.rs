//! Keys: `/registry/<group or core>/<plural>/[<namespace>/]<name>`.

use bytes::Bytes;

/// Below it stands everything the API server keeps.
pub const ROOT: &str = "/registry/";

/// Prefix of all keys of a resource, with the slash at its end.
pub fn resource(prefix: &str) -> String {
    format!("{ROOT}{prefix}/")
}

/// Prefix of a resource's keys in one namespace; of all of them where `namespace` is empty.
pub fn namespace(prefix: &str, namespace: &str) -> String {
    if namespace.is_empty() { resource(prefix) } else { format!("{ROOT}{prefix}/{namespace}/") }
}

/// Key of one object; `namespace` is empty for cluster-scoped ones.
pub fn object(prefix: &str, ns: &str, name: &str) -> Bytes {
    let mut key = namespace(prefix, ns);
    key.push_str(name);
    Bytes::from(key)
}

/// Key of what only one object of a resource may have. Outside [`ROOT`]: it is no object.
pub fn claim(prefix: &str, claim: &str) -> Bytes {
    Bytes::from(format!("/claims/{prefix}/{claim}"))
}

/// First key behind all that begin with `prefix`.
pub fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    Bytes::from(end)
}

/// The resource prefix (`core/pods`) of a key and what follows it, `None` for a key that is no object's.
pub fn split(key: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
    let group_end = text.find('/')?;
    let plural_end = group_end + 1 + text.get(group_end + 1..)?.find('/')?;
    Some((text.get(..plural_end)?, text.get(plural_end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_split_as_they_were_made() {
        assert_eq!(split(&object("core/pods", "default", "web")), Some(("core/pods", "default/web")));
        assert_eq!(split(&object("core/nodes", "", "n1")), Some(("core/nodes", "n1")));
        assert_eq!(split(b"/other/x"), None);
        assert_eq!(end_of(b"/a/"), Bytes::from_static(b"/a0"));
    }
}
