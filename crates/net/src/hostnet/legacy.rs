//! The legacy iptables filter table, read only: its rules are not visible to nftables and cannot be changed in parts.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Whether the legacy FORWARD chain drops by policy, without a rule that accepts what comes from `bridge`.
pub(super) fn drops_forwarded(bridge: &str) -> io::Result<bool> {
    // Asking the kernel for a table loads it; this list tells without.
    match std::fs::read_to_string("/proc/thread-self/net/ip_tables_names") {
        Ok(names) if names.lines().any(|name| name == "filter") => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let table = read_filter()?;
    Ok(policy(&table.entries, table.forward_policy) == Some(DROP) && !accepts_from(&table.entries, bridge))
}

struct FilterTable {
    entries: Vec<u8>,
    /// Offset of the entry that holds the policy of FORWARD.
    forward_policy: usize,
}

const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
const TABLE: &[u8] = b"filter";
/// struct ipt_getinfo.
const INFO_BYTES: usize = 84;
const INFO_UNDERFLOW_AT: usize = 56;
const INFO_SIZE_AT: usize = 80;
const HOOK_FORWARD: usize = 2;
/// struct ipt_get_entries, before its entries.
const ENTRIES_HEADER_BYTES: usize = 40;
const ENTRIES_SIZE_AT: usize = 32;
/// struct ipt_entry.
const IN_INTERFACE_AT: usize = 16;
const INTERFACE_BYTES: usize = 16;
const TARGET_OFFSET_AT: usize = 88;
const NEXT_OFFSET_AT: usize = 90;
/// struct xt_standard_target.
const VERDICT_AT: usize = 32;
const TARGET_NAME_AT: usize = 2;
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
/// More than any table a host has; bounds the buffer.
const TABLE_LIMIT_BYTES: usize = 64 << 20;

fn read_filter() -> io::Result<FilterTable> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut info = vec![0; INFO_BYTES];
    info[..TABLE.len()].copy_from_slice(TABLE);
    get(&socket, GET_INFO, &mut info)?;
    let forward_policy = word(&info, INFO_UNDERFLOW_AT + 4 * HOOK_FORWARD).ok_or_else(damaged)? as usize;
    let size = word(&info, INFO_SIZE_AT).ok_or_else(damaged)?;
    if size as usize > TABLE_LIMIT_BYTES {
        return Err(damaged());
    }
    let mut reply = vec![0; ENTRIES_HEADER_BYTES + size as usize];
    reply[..TABLE.len()].copy_from_slice(TABLE);
    reply[ENTRIES_SIZE_AT..ENTRIES_SIZE_AT + 4].copy_from_slice(&size.to_ne_bytes());
    get(&socket, GET_ENTRIES, &mut reply)?;
    Ok(FilterTable { entries: reply.split_off(ENTRIES_HEADER_BYTES), forward_policy })
}

fn get(socket: &impl AsFd, option: libc::c_int, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| damaged())?;
    // SAFETY: the kernel reads and writes at most `length` bytes of `buffer`, which is that long and borrowed for the call;
    // the descriptor is open for as long.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unexpected layout of the kernel's filter table")
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

/// The verdict of the entry at `entry` if its target is a plain verdict.
fn policy(entries: &[u8], entry: usize) -> Option<i32> {
    let target = entry + half(entries, entry + TARGET_OFFSET_AT)?;
    // A plain verdict has an empty target name.
    if *entries.get(target + TARGET_NAME_AT)? != 0 {
        return None;
    }
    word(entries, target + VERDICT_AT).map(|verdict| verdict as i32)
}

fn accepts_from(entries: &[u8], bridge: &str) -> bool {
    let mut at = 0;
    while let Some(next) = half(entries, at + NEXT_OFFSET_AT).filter(|next| *next > 0) {
        let name = entries.get(at + IN_INTERFACE_AT..at + IN_INTERFACE_AT + INTERFACE_BYTES).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        if name == bridge.as_bytes() && policy(entries, at) == Some(ACCEPT) {
            return true;
        }
        at += next;
    }
    false
}
