#![no_main]

#[path = "../../crates/meta/tests/hostile/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::protobuf_messages(data));
