//! What can stop a connection. Pure: takes readings, answers what they mean; no I/O, no clock, no unsafe.

pub mod crossing;
pub mod evidence;
