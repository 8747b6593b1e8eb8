//! Namespaces that outlive every process, and sockets inside them.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::PinRequest;

pub(super) fn pin(request: &PinRequest) -> Result<(), String> {
    let namespaces = [
        (&request.net, UnshareFlags::NEWNET, "net"),
        (&request.ipc, UnshareFlags::NEWIPC, "ipc"),
        (&request.uts, UnshareFlags::NEWUTS, "uts"),
    ];
    let flags = namespaces
        .iter()
        .filter(|(file, ..)| file.is_some())
        .fold(UnshareFlags::empty(), |all, (_, flag, _)| all | *flag);
    // SAFETY: this process has one thread and none of these namespaces holds a descriptor table or address space.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|error| format!("cannot make namespaces: {error}"))?;
    if request.net.is_some() {
        loopback_up().map_err(|error| format!("cannot bring the loopback up: {error}"))?;
    }
    if let (Some(hostname), true) = (&request.hostname, request.uts.is_some()) {
        rustix::system::sethostname(hostname.as_bytes())
            .map_err(|error| format!("cannot set the host name {hostname:?}: {error}"))?;
    }
    for (name, value) in &request.sysctls {
        set_sysctl(name, value).map_err(|error| format!("cannot set sysctl {name}={value}: {error}"))?;
    }
    for (name, value) in &request.optional_sysctls {
        // What is missed then is a convenience.
        let _ = set_sysctl(name, value);
    }
    for (file, _, name) in namespaces {
        let Some(file) = file else { continue };
        rustix::mount::mount_bind(format!("/proc/self/ns/{name}"), file)
            .map_err(|error| format!("cannot pin the {name} namespace at {}: {error}", file.display()))?;
    }
    Ok(())
}

fn set_sysctl(name: &str, value: &str) -> std::io::Result<()> {
    std::fs::write(Path::new("/proc/sys").join(name.replace('.', "/")), value)
}

pub(super) fn sockets(netns: &Path) -> Result<(OwnedFd, OwnedFd), String> {
    let file = File::open(netns).map_err(|error| format!("cannot open {}: {error}", netns.display()))?;
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .map_err(|error| format!("cannot join {}: {error}", netns.display()))?;
    let socket = |family| {
        rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
            .map_err(|error| format!("cannot make a socket: {error}"))
    };
    let v4 = socket(AddressFamily::INET)?;
    // Without IPv6 in the kernel the second is the first once more.
    let v6 = socket(AddressFamily::INET6).or_else(|_| v4.try_clone().map_err(|error| error.to_string()))?;
    Ok((v4, v6))
}

/// Sets the interface flag as `ip link set lo up` does.
pub(crate) fn loopback_up() -> std::io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo\0") {
        // Signed on some architectures only.
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: the request is a whole ifreq with a terminated name; the kernel reads the name and writes the flags.
    if unsafe { libc::ioctl(fd, libc::SIOCGIFFLAGS, &mut request) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the call above filled this field of the union.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    // SAFETY: as above; the kernel only reads.
    if unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &request) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
