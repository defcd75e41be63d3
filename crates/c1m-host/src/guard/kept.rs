//! Settings that stay after the end of the program, until somebody has them put back.

use std::path::Path;

use super::{
    Entry, Guard, GuardError, Outcome, State, folder_error, put_back, read_state, same_boot,
    write_as,
};

/// Beside the state file: what stands in it is not the next run's to put back.
const KEPT_FILE: &str = "kept.json";

impl Guard {
    /// Leaves the settings as they are. What was there before stays on disk, for
    /// [`Self::restore_kept`].
    pub fn keep(mut self) -> Result<(), GuardError> {
        let failed = folder_error(&self.folder);
        let mut settings = kept(&self.folder)?;
        for entry in &self.state.settings {
            match settings.iter_mut().find(|kept| kept.is(&entry.name, entry.netns.as_ref())) {
                // What was there before the first change is what is put back.
                Some(kept) => kept.written.extend(entry.written.iter().cloned()),
                None => settings.push(entry.clone()),
            }
        }
        let state = State { settings, ..self.state.clone() };
        write_as(&self.folder, KEPT_FILE, &state).map_err(&failed)?;
        self.state.settings.clear();
        super::remove_state(&self.folder).map_err(failed)
    }

    /// Puts back what [`Self::keep`] left. What failed stays for the next attempt.
    pub fn restore_kept(&mut self) -> Result<Vec<Outcome>, GuardError> {
        let failed = folder_error(&self.folder);
        let mut left: Vec<Entry> = Vec::new();
        let mut outcomes = Vec::new();
        for entry in kept(&self.folder)?.into_iter().rev() {
            let outcome = put_back(&self.tree, &entry);
            if matches!(outcome.result, super::RestoreResult::Failed { .. }) {
                left.insert(0, entry);
            }
            outcomes.push(outcome);
        }
        let state = State { settings: left, ..self.state.clone() };
        if state.settings.is_empty() {
            super::remove(&self.folder, KEPT_FILE).map_err(failed)?;
        } else {
            write_as(&self.folder, KEPT_FILE, &state).map_err(failed)?;
        }
        Ok(outcomes)
    }
}

/// What was kept since the last boot: the settings went with the kernel that had them.
fn kept(folder: &Path) -> Result<Vec<Entry>, GuardError> {
    let state = read_state(&folder.join(KEPT_FILE))?;
    let same = |state: &State| same_boot(&state.owner).map_err(folder_error(folder));
    match state {
        Some(state) if same(&state)? => Ok(state.settings),
        _ => Ok(Vec::new()),
    }
}
