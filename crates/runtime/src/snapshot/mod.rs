//! Root filesystems: layers unpacked once, united by overlayfs.

pub(crate) mod overlay;
