//! Records, and how they are printed: lines for people or JSON lines. Asks nothing of the kernel.

pub mod diagnosis;
pub mod doctor;
mod doctor_text;
pub mod event;
pub mod held;
mod held_text;
mod limit;
pub mod lines;
pub mod metrics;
pub mod record;
pub mod report;
mod text;
pub mod view;
pub mod watch;
mod watch_text;

pub use crate::escape;
pub mod writer;
