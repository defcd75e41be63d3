//! What became of the settings that were put back, in words.

use serde::{Deserialize, Serialize};

use crate::sysctl::Name;

/// What became of one setting when it was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum RestoreResult {
    /// It is again as it was before.
    Restored,
    /// It had never been changed, or somebody had put it back already.
    Unchanged,
    /// Somebody else changed it meanwhile; it was left alone.
    Foreign { present: String },
    /// Its network namespace is gone, and the setting with it.
    Gone,
    /// It could not be put back; the state file keeps it for the next attempt.
    Failed { reason: String },
}

/// One setting that was put back, or was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub name: Name,
    pub old: String,
    /// The value that was written last.
    pub new: String,
    /// The network namespace that it belongs to, where that is another one than this process's, in
    /// words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
    #[serde(flatten)]
    pub result: RestoreResult,
}

impl Outcome {
    /// Is the setting as it was before, or gone?
    #[must_use]
    pub fn is_back(&self) -> bool {
        matches!(
            self.result,
            RestoreResult::Restored | RestoreResult::Unchanged | RestoreResult::Gone
        )
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, old, new, elsewhere, result } = self;
        match result {
            RestoreResult::Restored => write!(f, "{name} is `{old}` again"),
            RestoreResult::Unchanged => write!(f, "{name} is `{old}`, as it was before"),
            RestoreResult::Foreign { present } => write!(
                f,
                "{name} was left at `{present}`: somebody changed it after this program made it `{new}`; before that it was `{old}`"
            ),
            RestoreResult::Failed { reason } => {
                write!(f, "{name} could not be put back to `{old}`: {reason}")
            }
            RestoreResult::Gone => write!(
                f,
                "{name} is gone with its network namespace; before it was changed it was `{old}`"
            ),
        }?;
        match elsewhere {
            Some(namespace) => write!(f, ", in the {namespace}"),
            None => Ok(()),
        }
    }
}
