//! Directories and files of this machine that nodes see, as they are typed.

use crate::drivers::Share;
use crate::reason::{Failure, HOST_PATH_MISSING, MK_USAGE, OrFail, Outcome};

/// `HOST:NODE`, with `:ro` behind read-only; the last colon divides, for a path of this machine may have one. The path of the
/// host is made absolute, and may be missing.
pub fn parse(text: &str) -> Outcome<Share> {
    let usage =
        |why: &str| Failure::new(&MK_USAGE, format!("{text:?}: {why}")).advise("Give it as HOST:NODE, two paths.");
    let (rest, read_only) = match text.rsplit_once(':') {
        Some((rest, "ro")) => (rest, true),
        Some((rest, "rw")) => (rest, false),
        _ => (text, false),
    };
    let (host, node) = rest.rsplit_once(':').ok_or_else(|| usage("the node's path is missing"))?;
    if !node.starts_with('/') {
        return Err(usage("the node's path is not absolute"));
    }
    if host.is_empty() {
        return Err(usage("this machine's path is missing"));
    }
    let source = std::path::absolute(host).or_fail(&HOST_PATH_MISSING, format_args!("cannot find {host:?}"))?;
    Ok(Share { source, target: node.into(), read_only })
}

/// The share with its source as it is on this machine.
///
/// # Errors
/// `HOST_PATH_MISSING`.
pub fn found(share: Share) -> Outcome<Share> {
    let found = std::fs::canonicalize(&share.source);
    let source = found.or_fail(&HOST_PATH_MISSING, format_args!("cannot find {:?}", share.source))?;
    Ok(Share { source, ..share })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_paths_and_a_mode() {
        let share = |text: &str| parse(text).unwrap();
        let of =
            |source: &str, target: &str, read_only| Share { source: source.into(), target: target.into(), read_only };
        assert_eq!(share("/a:/b"), of("/a", "/b", false));
        assert_eq!(share("/a:/b:ro"), of("/a", "/b", true));
        assert_eq!(share("/a:x:/b:rw"), of("/a:x", "/b", false));
        assert!(share("a:/b").source.is_absolute());
        for bad in ["", "/a", "/a:b", ":/b", "/a:ro"] {
            assert_eq!(parse(bad).unwrap_err().reason.id, "MK_USAGE", "{bad}");
        }
        assert_eq!(found(share("/no/such/path:/b")).unwrap_err().reason.id, "HOST_PATH_MISSING");
    }
}
