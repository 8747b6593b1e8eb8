//! Which device nodes a container may make and open.

use std::path::Path;

use super::{CgroupError, write};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    Block,
    Char,
}

/// What is allowed with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceAccess {
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl DeviceAccess {
    pub(crate) const ALL: DeviceAccess = DeviceAccess { read: true, write: true, mknod: true };
    pub(crate) const MKNOD: DeviceAccess = DeviceAccess { read: false, write: false, mknod: true };

    /// Of letters `rwm`.
    pub(crate) fn parse(letters: &str) -> DeviceAccess {
        let has = |letter| letters.contains(letter);
        DeviceAccess { read: has('r'), write: has('w'), mknod: has('m') }
    }
}

/// Allows; whatever no rule allows is denied. `None` is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRule {
    pub kind: Option<DeviceKind>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: DeviceAccess,
}

const fn char_device(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule { kind: Some(DeviceKind::Char), major: Some(major), minor, access: DeviceAccess::ALL }
}

impl DeviceRule {
    /// Every device.
    pub(crate) const ANY: DeviceRule = DeviceRule { kind: None, major: None, minor: None, access: DeviceAccess::ALL };

    /// What every container may use: the harmless devices and its terminals. Nodes may be made of any device, but not opened.
    pub(crate) const DEFAULT: [DeviceRule; 11] = [
        DeviceRule { kind: Some(DeviceKind::Char), major: None, minor: None, access: DeviceAccess::MKNOD },
        DeviceRule { kind: Some(DeviceKind::Block), major: None, minor: None, access: DeviceAccess::MKNOD },
        char_device(1, Some(3)),
        char_device(1, Some(5)),
        char_device(1, Some(7)),
        char_device(1, Some(8)),
        char_device(1, Some(9)),
        char_device(5, Some(0)),
        char_device(5, Some(1)),
        char_device(5, Some(2)),
        char_device(136, None),
    ];
}

pub(super) fn apply_v1(directory: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    if rules.contains(&DeviceRule::ANY) {
        return write(&directory.join("devices.allow"), "a");
    }
    write(&directory.join("devices.deny"), "a")?;
    for rule in rules {
        write(&directory.join("devices.allow"), &v1_line(rule))?;
    }
    Ok(())
}

fn v1_line(rule: &DeviceRule) -> String {
    let kind = match rule.kind {
        Some(DeviceKind::Block) => 'b',
        Some(DeviceKind::Char) => 'c',
        None => 'a',
    };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    let access: String = [('r', rule.access.read), ('w', rule.access.write), ('m', rule.access.mknod)]
        .iter()
        .filter(|(_, allowed)| *allowed)
        .map(|(letter, _)| *letter)
        .collect();
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_lines() {
        assert_eq!(v1_line(&char_device(136, None)), "c 136:* rwm");
        let rule = DeviceRule {
            kind: Some(DeviceKind::Block),
            major: Some(8),
            minor: Some(1),
            access: DeviceAccess::parse("r"),
        };
        assert_eq!(v1_line(&rule), "b 8:1 r");
    }
}
