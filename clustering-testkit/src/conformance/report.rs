use std::io::Write;

use super::scene::Rule;

/// Reports something that the suite did not judge. This writes directly to standard error, because test runners capture
/// what `eprintln!` prints.
pub(super) fn not_judged(rule: Rule, what: &str, why: &str) {
    let rule = rule as u8;
    let _ = writeln!(std::io::stderr(), "NOT JUDGED: contract rule {rule}, {what}: {why}");
}
