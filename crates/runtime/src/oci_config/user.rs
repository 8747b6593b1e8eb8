//! Who a process runs as, by the container's own /etc/passwd and /etc/group.

use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::{RuntimeError, User};

/// A passwd or group file larger than this is not one.
const FILE_LIMIT_BYTES: u64 = 8 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary, the primary one included.
    pub groups: Vec<u32>,
    pub home: String,
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Looks the user up below a mounted root filesystem.
pub(crate) fn resolve(rootfs: &Path, user: &User) -> Result<Identity, RuntimeError> {
    let passwd = read_below(rootfs, "etc/passwd");
    let group = read_below(rootfs, "etc/group");
    decide(&passwd, &group, user)
}

fn decide(passwd: &str, group: &str, user: &User) -> Result<Identity, RuntimeError> {
    let accounts: Vec<Account> = passwd.lines().filter_map(account).collect();
    let groups: Vec<Group> = group.lines().filter_map(parse_group).collect();
    let unknown = || RuntimeError::UnknownUser { user: user.image_user.clone() };
    let (user_part, group_part) = match user.image_user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user.image_user.as_str(), None),
    };
    let found = match user.uid {
        Some(uid) => accounts.iter().find(|account| account.uid == uid),
        None => match user_part.parse::<u32>() {
            Ok(uid) => accounts.iter().find(|account| account.uid == uid),
            Err(_) if user_part.is_empty() => accounts.iter().find(|account| account.uid == 0),
            Err(_) => Some(accounts.iter().find(|account| account.name == user_part).ok_or_else(unknown)?),
        },
    };
    let uid = user.uid.or_else(|| user_part.parse().ok()).or(found.map(|account| account.uid)).unwrap_or(0);
    let image_gid = match group_part.filter(|_| user.uid.is_none()) {
        Some(name) => match name.parse() {
            Ok(gid) => Some(gid),
            Err(_) => Some(groups.iter().find(|group| group.name == name).ok_or_else(unknown)?.gid),
        },
        None => None,
    };
    let gid = user.gid.or(image_gid).or(found.map(|account| account.gid)).unwrap_or(0);
    let mut all = vec![gid];
    if !user.strict_supplemental
        && let Some(account) = found
    {
        all.extend(groups.iter().filter(|group| group.members.contains(&account.name)).map(|group| group.gid));
    }
    all.extend(&user.supplemental_gids);
    let mut unique = Vec::with_capacity(all.len());
    for gid in all {
        if !unique.contains(&gid) {
            unique.push(gid);
        }
    }
    let home = found.map(|account| account.home.clone()).filter(|home| !home.is_empty());
    Ok(Identity { uid, gid, groups: unique, home: home.unwrap_or_else(|| "/".to_owned()) })
}

fn account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1).unwrap_or_default().to_owned();
    Some(Account { name, uid, gid, home })
}

fn parse_group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let gid = fields.nth(1)?.parse().ok()?;
    let members = fields.next().unwrap_or_default().split(',').filter(|member| !member.is_empty());
    Some(Group { name, gid, members: members.map(str::to_owned).collect() })
}

/// The file's text with links followed inside the root only; empty if there is none.
fn read_below(rootfs: &Path, name: &str) -> String {
    let mut text = Vec::new();
    let Ok(root) = std::fs::File::open(rootfs) else { return String::new() };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if let Ok(file) = rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve) {
        // What cannot be read names nobody.
        let _ = std::fs::File::from(file).take(FILE_LIMIT_BYTES).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:40:web,other\n";

    fn user(image_user: &str) -> User {
        User { image_user: image_user.to_owned(), ..User::default() }
    }

    #[test]
    fn names_and_numbers() {
        let who = |user: User| decide(PASSWD, GROUP, &user).map(|id| (id.uid, id.gid, id.groups, id.home));
        assert_eq!(who(user("")).unwrap(), (0, 0, vec![0], "/root".to_owned()));
        assert_eq!(who(user("web")).unwrap(), (33, 34, vec![34, 40], "/srv".to_owned()));
        assert_eq!(who(user("33:logs")).unwrap(), (33, 40, vec![40], "/srv".to_owned()));
        assert_eq!(who(user("1000")).unwrap(), (1000, 0, vec![0], "/".to_owned()));
        assert_eq!(who(user("1000:7")).unwrap(), (1000, 7, vec![7], "/".to_owned()));
        let over = User { uid: Some(5), gid: None, supplemental_gids: vec![9], ..user("web:logs") };
        assert_eq!(who(over).unwrap(), (5, 0, vec![0, 9], "/".to_owned()));
        let strict = User { strict_supplemental: true, ..user("web") };
        assert_eq!(who(strict).unwrap().2, vec![34]);
        assert!(matches!(who(user("nobody")), Err(RuntimeError::UnknownUser { .. })));
        assert!(matches!(who(user("web:nogroup")), Err(RuntimeError::UnknownUser { .. })));
    }
}
