//! Records, and how they are printed: lines for people or JSON lines. Asks nothing of the kernel.

pub mod lines;
pub mod metrics;
pub mod report;
pub mod view;
pub mod writer;
