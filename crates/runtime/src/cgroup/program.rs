//! Device access on cgroup v2, where it is a BPF program on the group: written here instruction by instruction.
//!
//! The kernel runs the program at every open and mknod with a context of three 32-bit words: access and kind, major, minor; it
//! returns 1 to allow. The program tries rule after rule and ends with a refusal.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::CgroupError;
use super::devices::{DeviceKind, DeviceRule};

const KIND_BLOCK: i32 = 1;
const KIND_CHAR: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_ATTACH: i64 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

const R0: u8 = 0;
const R1: u8 = 1;
/// Kind, access, major, minor, scratch.
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// One instruction as the kernel lays it out.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Low half destination, high half source.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const fn new(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
        Instruction { code, registers: to | (from << 4), offset, immediate }
    }

    /// `to = *(u32 *)(from + offset)`
    const fn load(to: u8, from: u8, offset: i16) -> Instruction {
        Instruction::new(0x61, to, from, offset, 0)
    }

    /// `to = from`, 32 bits
    const fn copy(to: u8, from: u8) -> Instruction {
        Instruction::new(0xbc, to, from, 0, 0)
    }

    /// `to = immediate`, 32 bits
    const fn set(to: u8, immediate: i32) -> Instruction {
        Instruction::new(0xb4, to, 0, 0, immediate)
    }

    /// `to &= immediate`, 32 bits
    const fn and(to: u8, immediate: i32) -> Instruction {
        Instruction::new(0x54, to, 0, 0, immediate)
    }

    /// `to >>= immediate`, 32 bits
    const fn shift_right(to: u8, immediate: i32) -> Instruction {
        Instruction::new(0x74, to, 0, 0, immediate)
    }

    /// Skips `offset` instructions if `register != immediate`.
    const fn skip_unless(register: u8, immediate: i32, offset: i16) -> Instruction {
        Instruction::new(0x55, register, 0, offset, immediate)
    }

    const EXIT: Instruction = Instruction::new(0x95, 0, 0, 0, 0);
}

fn assemble(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        Instruction::load(KIND, R1, 0),
        Instruction::copy(ACCESS, KIND),
        Instruction::and(KIND, 0xffff),
        Instruction::shift_right(ACCESS, 16),
        Instruction::load(MAJOR, R1, 4),
        Instruction::load(MINOR, R1, 8),
    ];
    for rule in rules {
        program.extend(allow(rule));
    }
    program.extend([Instruction::set(R0, 0), Instruction::EXIT]);
    program
}

/// Tests that each skip to the end of the rule, then the permission.
fn allow(rule: &DeviceRule) -> Vec<Instruction> {
    let mut tests: Vec<(Option<[Instruction; 2]>, u8, i32)> = Vec::new();
    if let Some(kind) = rule.kind {
        let kind = match kind {
            DeviceKind::Block => KIND_BLOCK,
            DeviceKind::Char => KIND_CHAR,
        };
        tests.push((None, KIND, kind));
    }
    let allowed =
        [(rule.access.read, ACCESS_READ), (rule.access.write, ACCESS_WRITE), (rule.access.mknod, ACCESS_MKNOD)];
    let refused = allowed.iter().filter(|(allowed, _)| !allowed).fold(0, |bits, (_, bit)| bits | bit);
    if refused != 0 {
        // No bit is asked for that the rule does not give.
        tests.push((Some([Instruction::copy(SCRATCH, ACCESS), Instruction::and(SCRATCH, refused)]), SCRATCH, 0));
    }
    if let Some(major) = rule.major {
        tests.push((None, MAJOR, major.cast_signed()));
    }
    if let Some(minor) = rule.minor {
        tests.push((None, MINOR, minor.cast_signed()));
    }
    let length: usize = tests.iter().map(|(before, ..)| if before.is_some() { 3 } else { 1 }).sum::<usize>() + 2;
    let mut block = Vec::with_capacity(length);
    for (before, register, value) in tests {
        block.extend(before.into_iter().flatten());
        let rest = length - block.len() - 1;
        block.push(Instruction::skip_unless(register, value, i16::try_from(rest).unwrap_or(i16::MAX)));
    }
    block.extend([Instruction::set(R0, 1), Instruction::EXIT]);
    block
}

/// `union bpf_attr` for loading, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// `union bpf_attr` for attaching.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// Puts the program on the group, where it stays as long as the group.
pub(super) fn attach(directory: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    if rules.contains(&DeviceRule::ANY) {
        return Ok(());
    }
    let failed = |step| move |source| CgroupError::Device { step, path: directory.to_owned(), source };
    let program = load(&assemble(rules)).map_err(failed("load"))?;
    let group = File::open(directory).map_err(failed("open the group of"))?;
    let attributes = Attach {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
        replaced: 0,
    };
    // SAFETY: the attributes are of the size told and name open descriptors.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &attributes, size_of::<Attach>()) };
    if result < 0 { Err(failed("attach")(io::Error::last_os_error())) } else { Ok(()) }
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        licence: c"Apache".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the attributes are of the size told; the instructions and the licence live until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &attributes, size_of::<Load>()) };
    match i32::try_from(result) {
        // SAFETY: the kernel has just given us this descriptor.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer: the few instructions the assembler uses, interpreted.
    fn run(program: &[Instruction], context: [u32; 3]) -> u32 {
        let mut registers = [0u32; 11];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let value = immediate as u32;
            at += 1;
            match code {
                0x61 => registers[to] = context[usize::try_from(offset).unwrap() / 4],
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = value,
                0x54 => registers[to] &= value,
                0x74 => registers[to] >>= value,
                0x55 if registers[to] != value => at += usize::try_from(offset).unwrap(),
                0x55 => {}
                0x95 => return registers[0],
                other => panic!("unexpected instruction {other:#x}"),
            }
        }
    }

    fn ask(kind: i32, access: i32, major: u32, minor: u32) -> bool {
        run(&assemble(&DeviceRule::DEFAULT), [((access << 16) | kind) as u32, major, minor]) == 1
    }

    #[test]
    fn the_default_rules() {
        assert!(ask(KIND_CHAR, ACCESS_READ | ACCESS_WRITE, 1, 3), "/dev/null");
        assert!(ask(KIND_CHAR, ACCESS_READ, 136, 7), "a terminal");
        assert!(ask(KIND_BLOCK, ACCESS_MKNOD, 8, 0), "a node may be made");
        assert!(!ask(KIND_BLOCK, ACCESS_READ, 8, 0), "but not opened");
        assert!(!ask(KIND_CHAR, ACCESS_WRITE, 1, 1), "/dev/mem");
        assert!(!ask(KIND_BLOCK, ACCESS_READ, 1, 3), "the same numbers of the other kind");
    }
}
