use std::io::Write;

/// Reports something that the suite did not judge. This writes directly to standard error, because test runners capture
/// what `eprintln!` prints.
pub(super) fn not_judged(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "NOT JUDGED: {what}: {why}");
}
