//! Environment variables that every process needs.

/// What is searched for programs unless the image or the caller says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Of variables given twice the last counts; PATH and HOME are added if missing. (Without HOME the container library asks the
/// container's own name service who the user is.)
pub(crate) fn with_defaults(env: &[String], home: &str) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut result: Vec<String> = Vec::with_capacity(env.len() + 2);
    for entry in env {
        match result.iter_mut().find(|other| name(other) == name(entry)) {
            Some(other) => other.clone_from(entry),
            None => result.push(entry.clone()),
        }
    }
    for (key, value) in [("PATH", DEFAULT_PATH), ("HOME", home)] {
        if !result.iter().any(|entry| name(entry) == key) {
            result.push(format!("{key}={value}"));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_counts_and_defaults_are_added() {
        let env = ["A=1".to_owned(), "HOME=/x".to_owned(), "A=2".to_owned()];
        assert_eq!(with_defaults(&env, "/root"), ["A=2", "HOME=/x", &format!("PATH={DEFAULT_PATH}")]);
    }
}
