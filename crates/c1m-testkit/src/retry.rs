//! Tests whose figures are a whole host's, which other programs can disturb.

const ATTEMPTS: usize = 3;

/// Calls `attempt` until it gives a value, three times at most: its `Err` says what other programs of the host can have done.
///
/// Each retry is a line of standard output, which `cargo xtask test` counts in its last line.
///
/// # Panics
/// No attempt gave a value.
pub fn undisturbed<T, E>(
    mut attempt: impl FnMut() -> Result<Result<T, String>, E>,
) -> Result<T, E> {
    let mut disturbed = Vec::new();
    loop {
        match attempt()? {
            Ok(value) => return Ok(value),
            Err(what) => disturbed.push(what),
        }
        assert!(disturbed.len() < ATTEMPTS, "not once in {ATTEMPTS} attempts: {disturbed:#?}");
        println!("test retried: {}", disturbed[disturbed.len() - 1].replace('\n', " "));
    }
}
