//! From the kernel to Rust values. Prints nothing.

pub mod btf;
