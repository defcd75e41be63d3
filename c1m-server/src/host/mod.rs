//! What the running host says of itself: /proc and /sys, as values.

pub mod files;
pub mod process;
pub mod sockstat;
