//! Link options of the binary alone, so that tests and build scripts link as always.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |part: &str| std::env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    // Here rustc links by its own lld, which folds functions of the same machine code: a megabyte less. Elsewhere the
    // linker is the system's, which may not know the option.
    if target("ARCH") == "x86_64" && target("OS") == "linux" {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
