//! A line that limits open files: of limits.conf(5), or of a unit of systemd.

use super::lines::LimitType;

/// A limit of open files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    pub from: Setter,
    pub value: String,
}

impl Descriptors {
    #[must_use]
    pub fn is_soft(&self) -> bool {
        matches!(&self.from, Setter::LogIn { limit_type: LimitType::Soft, .. })
    }
}

/// Who sets it for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setter {
    /// limits.conf, for a user, a group or everybody.
    LogIn { domain: String, limit_type: LimitType },
    /// `LimitNOFILE=`
    Unit(String),
    /// `DefaultLimitNOFILE=`, for units without their own.
    EveryUnit,
}

/// The value of a text.
pub(crate) enum Value {
    Number(u64),
    Unlimited,
}

pub(crate) fn value_of(text: &str) -> Option<Value> {
    match text {
        "unlimited" | "infinity" | "-1" => Some(Value::Unlimited),
        number => number.parse().ok().map(Value::Number),
    }
}

impl Descriptors {
    /// Whoever reads the line leaves it out, and what was set before stays. An empty value of a unit is none of these: it takes back.
    pub(super) fn is_left_out(&self) -> bool {
        match &self.from {
            Setter::LogIn { .. } => value_of(&self.value).is_none(),
            Setter::Unit(_) | Setter::EveryUnit => {
                !self.value.is_empty() && of_unit(&self.value).is_none()
            }
        }
    }
}

/// The hard limit of `hard` or `soft:hard`: that is what a program can have.
pub(crate) fn of_unit(value: &str) -> Option<Value> {
    match value.split_once(':') {
        None => value_of(value.trim()),
        Some((soft, hard)) => value_of(soft.trim()).and(value_of(hard.trim())),
    }
}
