//! The same suite on cgroup v2: a Debian kernel under QEMU's emulation, with this program as its init.
//!
//! The kernel is that of /boot (Debian's `linux-image-cloud-amd64`) or, if none is installed, taken from the package, which apt downloads.
//! The initial filesystem is made here: this program, busybox and two kernel modules.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::FutureExt;
use kminik_runtime::keeper::{self, KeeperConfig};
use kminik_runtime::machine::{self, MachineConfig};
use rustix::mount::MountFlags;

use crate::harness::Test;

pub const ALL: &[Test] = &[Test { name: "qemu::suite_on_cgroup_v2", run: || suite_on_cgroup_v2().boxed_local() }];

/// What runs in the guest: where v2 differs, and a node with pods in it. (Emulation is slow; all of it passes there.)
const FILTERS: [&str; 5] =
    ["containers::output", "containers::out_of_memory", "containers::devices", "node::pods_in_a_node", "v2::"];
/// Emulated, a test takes some twenty times as long.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
const MODULES: [&str; 2] = ["overlay", "loop"];

/// A `newc` archive.
struct Cpio(Vec<u8>);

impl Cpio {
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(4), 0);
        let fields = [1, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        self.0.extend(b"070701");
        for field in fields {
            write!(self.0, "{field:08x}").unwrap();
        }
        self.0.extend(name.as_bytes());
        self.0.push(0);
        pad(&mut self.0);
        self.0.extend(data);
        pad(&mut self.0);
    }

    fn directory(&mut self, name: &str) {
        self.add(name, 0o040_755, (0, 0), &[]);
    }

    fn program(&mut self, name: &str, data: &[u8]) {
        self.add(name, 0o100_755, (0, 0), data);
    }
}

/// Kernel image and module directory.
fn kernel(work: &Path) -> (PathBuf, PathBuf) {
    let image = |boot: &Path| {
        let entries = std::fs::read_dir(boot).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).find(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("vmlinuz-") && name.contains("cloud")
        })
    };
    let root = match image(Path::new("/boot")) {
        Some(_) => PathBuf::from("/"),
        None => {
            let run =
                |command: &mut Command| assert!(command.current_dir(work).status().unwrap().success(), "{command:?}");
            let depends = Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output().unwrap();
            let text = String::from_utf8(depends.stdout).unwrap();
            let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image")).unwrap();
            run(Command::new("apt-get")
                .args(["-q", "download", &format!("linux-image{package}")])
                .stdout(Stdio::null()));
            let files = std::fs::read_dir(work).unwrap().flatten().map(|entry| entry.path());
            let deb =
                files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb")).unwrap();
            run(Command::new("dpkg-deb").arg("-x").arg(deb).arg("kernel"));
            work.join("kernel")
        }
    };
    let image = image(&root.join("boot")).unwrap();
    let version = image.file_name().unwrap().to_string_lossy().strip_prefix("vmlinuz-").unwrap().to_owned();
    (image, root.join("lib/modules").join(version))
}

fn find_module(directory: &Path, name: &str) -> PathBuf {
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        if path.file_name().is_some_and(|file| file == format!("{name}.ko").as_str()) {
            return path;
        }
        if path.is_dir() && !path.is_symlink() {
            pending.extend(std::fs::read_dir(&path).unwrap().flatten().map(|entry| entry.path()));
        }
    }
    panic!("no module {name} in {}", directory.display());
}

async fn suite_on_cgroup_v2() {
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let (image, modules) = kernel(work.path());
    let program = work.path().join("program");
    std::fs::copy("/proc/self/exe", &program).unwrap();
    assert!(Command::new("strip").arg(&program).status().unwrap().success());
    let mut cpio = Cpio(Vec::new());
    for directory in ["bin", "dev", "proc", "sys", "run", "tmp", "var", "var/tmp", "etc", "modules", "newroot"] {
        cpio.directory(directory);
    }
    cpio.add("dev/console", 0o020_600, (5, 1), &[]);
    cpio.program("init", &std::fs::read(&program).unwrap());
    cpio.program("bin/busybox", &std::fs::read("/bin/busybox").unwrap());
    for module in MODULES {
        cpio.program(&format!("modules/{module}.ko"), &std::fs::read(find_module(&modules, module)).unwrap());
    }
    cpio.add("TRAILER!!!", 0, (0, 0), &[]);
    let initrd = work.path().join("initrd");
    std::fs::write(&initrd, cpio.0).unwrap();

    let log = work.path().join("console.log");
    let mut qemu = tokio::process::Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "tcg,thread=multi",
            "-smp",
            "2",
            "-m",
            "1536",
            "-cpu",
            "max",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .args(["-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all mitigations=off"])
        .arg("-kernel")
        .arg(&image)
        .arg("-initrd")
        .arg(&initrd)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = tokio::time::timeout(BOOT_LIMIT, qemu.wait()).await;
    let mut text = String::new();
    let _ = std::fs::File::open(&log).unwrap().read_to_string(&mut text);
    for line in text.lines() {
        println!("  guest: {}", line.trim_end());
    }
    assert!(ended.is_ok(), "the guest did not end");
    assert!(text.contains("failed: []"), "the suite failed in the guest");
}

/// PID 1 of the guest.
pub fn guest() -> i32 {
    // The first root cannot be pivoted away from: everything moves to another.
    let copy = |name: &str| {
        let to = Path::new("/newroot").join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(Path::new("/").join(name), to).unwrap();
    };
    rustix::mount::mount("root", "/newroot", "tmpfs", MountFlags::empty(), None).unwrap();
    copy("init");
    copy("bin/busybox");
    for module in MODULES {
        copy(&format!("modules/{module}.ko"));
    }
    for directory in ["dev", "proc", "sys", "run", "tmp", "var/tmp", "etc", "root"] {
        std::fs::create_dir_all(Path::new("/newroot").join(directory)).unwrap();
    }
    rustix::process::chdir("/newroot").unwrap();
    rustix::mount::mount_move(".", "/").unwrap();
    rustix::process::chroot(".").unwrap();
    rustix::process::chdir("/").unwrap();
    for module in MODULES {
        let file = std::fs::File::open(format!("/modules/{module}.ko")).unwrap();
        rustix::system::finit_module(&file, c"", 0).unwrap();
    }
    let config = MachineConfig { pods_cgroup: "/pods".into(), reserved_memory_bytes: 64 << 20 };
    machine::prepare(&config).unwrap();
    let socket = PathBuf::from("/run/keeper.sock");
    let mut program = vec!["/init".to_owned(), "__suite".to_owned()];
    program.extend(FILTERS.map(str::to_owned));
    let env = vec![("KEEPER_SOCKET".to_owned(), socket.display().to_string()), ("IN_GUEST".to_owned(), "1".to_owned())];
    let code = keeper::run(&KeeperConfig { socket, program, env, stop_limit: Duration::from_secs(5), restart: false });
    println!("guest ends: {code:?}");
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff).unwrap();
    0
}
