//! What the kernel must offer, as whoever knows it says: so that a test which is ignored although it could run is a failure, and one
//! which runs although it can't as well.
//!
//! `C1M_KERNEL_OFFERS` has the names of [`Offer`], separated by commas. Without it, as on a machine that nobody has described, a
//! test is ignored wherever the kernel does not give what it needs.

use std::env;

use c1m_testkit::Skip;
use libtest_mimic::{Completion, Failed, Trial};

const VARIABLE: &str = "C1M_KERNEL_OFFERS";

/// What not every kernel has, or allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Programs on tracepoints with BTF: 5.10.
    Tracing,
    /// Programs on kernel functions: 5.10, unless the host forbids them.
    Functions,
    /// Programs on kernel functions by their registers: a matter of how the kernel is built.
    Kprobes,
    /// `reason` of the tracepoint kfree_skb: 5.17, and in some older ones.
    DropReasons,
    /// IPv6 on the loopback interface.
    Ipv6,
}

impl Offer {
    const ALL: [(Self, &str); 5] = [
        (Self::Tracing, "tracing"),
        (Self::Functions, "functions"),
        (Self::Kprobes, "kprobes"),
        (Self::DropReasons, "drop_reasons"),
        (Self::Ipv6, "ipv6"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(offer, _)| *offer == self).map_or("?", |(_, name)| name)
    }

    /// What is said; `None` when nobody has said anything. Names that only newer tests know are not wrong.
    fn said() -> Option<Vec<Self>> {
        let names = env::var(VARIABLE).ok()?;
        let offers = Self::ALL.iter().filter(|(_, name)| names.split(',').any(|it| it == *name));
        Some(offers.map(|(offer, _)| *offer).collect())
    }
}

/// A test that needs all of `needs`.
pub(crate) fn test(name: &str, needs: &'static [Offer], run: fn() -> Result<(), Skip>) -> Trial {
    Trial::ignorable_test(name, move || judge(run(), needs, Offer::said().as_deref()))
}

fn judge(
    result: Result<(), Skip>,
    needs: &[Offer],
    said: Option<&[Offer]>,
) -> Result<Completion, Failed> {
    let missing = needs.iter().find(|need| said.is_some_and(|said| !said.contains(need)));
    match (result, missing) {
        (Ok(()), None) => Ok(Completion::Completed),
        (Ok(()), Some(missing)) => Err(Failed::from(format!(
            "it ran, and this kernel was said to have no {}",
            missing.name()
        ))),
        (Err(Skip(reason)), None) if said.is_some() => {
            Err(Failed::from(format!("it must run on this kernel, but: {reason}")))
        }
        (Err(Skip(reason)), _) => Ok(Completion::ignored_with(reason)),
    }
}
