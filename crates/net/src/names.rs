//! Names for kernel objects, which are short and must be stable across versions.

/// FNV-1a, 64 bit: stable for ever, unlike the standard library's hasher.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A link name of at most 15 bytes: `prefix` and `text` when that fits, else `prefix` and a hash of `text`.
pub(crate) fn link_name(prefix: &str, text: &str) -> String {
    const LIMIT: usize = 15;
    if prefix.len() + text.len() <= LIMIT {
        return format!("{prefix}{text}");
    }
    let mut name = format!("{prefix}{:016x}", hash(text));
    name.truncate(LIMIT);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        assert_eq!(link_name("km-", "kminik"), "km-kminik");
        let long = link_name("km-", "a-profile-with-a-long-name");
        assert_eq!(long.len(), 15);
        assert_ne!(long, link_name("km-", "a-profile-with-a-long-name2"));
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c, "the algorithm must never change");
    }
}
