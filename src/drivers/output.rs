//! How far a command in a node may go whose output is collected, and what is said of one that goes further.

use std::time::Duration;

pub use kminik_runtime::node::OutputBounds;

use super::Machine;
use crate::reason::{Failure, GUEST_EXEC_OUTPUT, GUEST_EXEC_TIMEOUT};

const MIB: u64 = 1 << 20;

/// Of a command that only says something.
pub const ANSWER: OutputBounds = OutputBounds { time: Duration::from_secs(30), bytes: MIB };
/// Of one that does something first: freezes containers, replaces the node's process.
pub const WORK: OutputBounds = OutputBounds { time: Duration::from_secs(120), bytes: MIB };
/// Of one that gives logs: the node's file and those of the cluster's own pods.
pub const LOGS: OutputBounds = OutputBounds { time: Duration::from_secs(60), bytes: 64 * MIB };

/// A command of which a driver was to collect what it says.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub machine: Machine<'a>,
    pub args: &'a [&'a str],
    pub bounds: OutputBounds,
}

impl Asked<'_> {
    pub fn endless(&self) -> Failure {
        let (command, name, seconds) = (self.args.join(" "), self.machine.name(), self.bounds.time.as_secs());
        Failure::new(
            &GUEST_EXEC_TIMEOUT,
            format!("the command \"{command}\" in the node \"{name}\" did not end within {seconds} s"),
        )
    }

    pub fn too_much(&self) -> Failure {
        let (command, name, limit) = (self.args.join(" "), self.machine.name(), self.bounds.bytes / MIB);
        Failure::new(
            &GUEST_EXEC_OUTPUT,
            format!("the command \"{command}\" in the node \"{name}\" said more than {limit} MiB"),
        )
    }
}
