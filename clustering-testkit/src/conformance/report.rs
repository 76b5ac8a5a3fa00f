use std::io::Write;

use super::scene::Rule;

/// Says what was not judged, where the test runner does not swallow it: it captures what is printed, but not what is
/// written to standard error itself.
pub(super) fn not_judged(rule: Rule, what: &str, why: &str) {
    let rule = rule as u8;
    let _ = writeln!(std::io::stderr(), "NOT JUDGED of contract rule {rule}: {what}, because {why}");
}
