//! Root filesystems: layers unpacked once, united by overlayfs.

pub(crate) mod layers;
pub(crate) mod overlay;
pub(crate) mod unpack;
