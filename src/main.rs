//! `kminik`: the command line, the node and the servers of its pods, in one binary. docs/ARCHITECTURE.md is the map.

#![allow(unreachable_pub, reason = "in a program `pub` marks what a module offers the others")]

mod addons;
mod agent;
mod audit;
mod autostart;
mod cli;
mod clock;
mod commands;
mod declared;
#[cfg(test)]
mod docs;
mod drivers;
mod engine;
mod env;
mod exposure;
mod home;
mod kubeconfig;
mod messages;
mod networking;
mod node;
mod ops;
mod ports;
mod printer;
mod profile;
mod reason;
mod settings;
mod template;
mod terminal;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The container helper and PID 1 must run before any thread exists.
    kminik_runtime::helper::dispatch_if_requested();
    if !commands::is_kubectl() && std::env::args_os().nth(1).is_some_and(|argument| argument == "init") {
        return node::init::main();
    }
    // Every TLS library in the process takes this one; a second installation could only be ours again.
    let _ = rustls::crypto::ring::default_provider().install_default();
    commands::main()
}
