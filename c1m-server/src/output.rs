//! Records, and how they are printed: lines for people or JSON lines. Asks nothing of the kernel.

pub mod metrics;
pub mod view;
