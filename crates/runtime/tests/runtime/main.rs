//! The runtime against the real kernel, as root, with busybox (statically linked, /bin/busybox) as what containers run.
//!
//! `cargo test -p kminik-runtime --test runtime [FILTER]`. The program is its own keeper: it starts itself again below one, so that
//! containers' processes have a reaper as they have in a node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]
// Shared between the files of one program.
#![allow(unreachable_pub)]

mod adoption;
mod busybox;
mod containers;
mod harness;
mod layers;
mod node;
mod pods;
mod qemu;
mod v2;

const TESTS: &[&[harness::Test]] = &[containers::ALL, layers::ALL, adoption::ALL, node::ALL, v2::ALL, qemu::ALL];

fn main() {
    kminik_runtime::helper::dispatch_if_requested();
    harness::main(TESTS)
}
