//! What people type and what they read: numbers, addresses, names from outside, and records as pages and as lines.
//!
//! Asks nothing of the kernel but which interface an address names.

pub mod address;
pub mod escape;
pub mod page;
pub mod pages;
pub mod records;
pub mod sources;
pub mod units;
