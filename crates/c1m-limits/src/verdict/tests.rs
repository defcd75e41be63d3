//! Verdicts of several limits together: which looks like which, and what names none.

mod pairs;
mod quiet;
