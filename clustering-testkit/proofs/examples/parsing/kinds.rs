//! Parses lists of faults.

use std::{error::Error, fmt::Debug};

use lexopt::prelude::*;

/// Parses a comma-separated list of kinds of faults, given by their variant names.
pub(crate) fn kinds<K: Copy + Debug>(
    parser: &mut lexopt::Parser,
    all: &[K],
) -> Result<Vec<K>, Box<dyn Error>> {
    let list = parser.value()?.string()?;
    let kind = |text: &str| {
        let known = all.iter().copied().find(|kind| format!("{kind:?}").eq_ignore_ascii_case(text.trim()));
        known.ok_or_else(|| {
            let all: Vec<_> = all.iter().map(|kind| format!("{kind:?}")).collect();
            format!("{text:?} is not a fault: expected one of {}", all.join(", ")).into()
        })
    };
    list.split(',').map(kind).collect()
}
