//! Parses the values of options.

use std::{error::Error, ops::RangeInclusive};

use lexopt::prelude::*;

/// Parses a number within the range.
pub(crate) fn number(
    parser: &mut lexopt::Parser,
    option: &str,
    range: RangeInclusive<u64>,
) -> Result<u64, Box<dyn Error>> {
    let given = parser.value()?.string()?;
    let number = given.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        format!("{option} {given:?}: expected a number from {} to {}", range.start(), range.end()).into()
    })
}
