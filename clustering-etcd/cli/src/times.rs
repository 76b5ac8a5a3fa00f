//! Parses and formats durations and times.

use std::{
    fmt::Write,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clustering_core::Version;

/// The current time of this process. Durations are differences of `at`, and never use other machines' clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// Wall clock time in milliseconds since 1970.
    pub(crate) wall_ms: u64,
    pub(crate) at: Instant,
}

impl Now {
    pub(crate) fn read() -> Self {
        Now { wall_ms: now_ms(), at: Instant::now() }
    }

    pub(crate) fn since(self, earlier: Now) -> Duration {
        self.at.saturating_duration_since(earlier.at)
    }
}

/// Parses a duration for clap, such as `5s`, `1m30s`, `500ms`, or a number of seconds.
///
/// # Errors
///
/// A text that is not a duration, and zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    };
    let parsed = parsed.map_err(|error| format!("{error}; expected a time such as 5s, 1m30s or 500ms"))?;
    match parsed.is_zero() {
        true => Err("it must be longer than zero".to_owned()),
        false => Ok(parsed),
    }
}

/// Returns this machine's wall clock time in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Formats the duration with at most two units, as in `850ms`, `3.2s`, `4m12s`, `3h05m`, `12d`.
pub(crate) fn brief(duration: Duration) -> String {
    let (millis, seconds) = (duration.as_millis(), duration.as_secs());
    match seconds {
        0 => format!("{millis}ms"),
        1..10 => format!("{:.1}s", (millis / 100) as f64 / 10.0),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Formats the time in UTC, to the second, or as a question mark after the year 9999, which the format cannot express.
pub(crate) fn moment(ms: u64) -> String {
    let mut text = String::new();
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(ms)).map(humantime::format_rfc3339_seconds);
    match moment.map(|moment| write!(text, "{moment}")) {
        Some(Ok(())) => text,
        _ => "?".to_owned(),
    }
}

/// Formats the time in the version's label, or returns the label itself if its time is out of range.
pub(crate) fn label_time(version: Version) -> String {
    match version.is_plausible() {
        true => moment(version.minted_ms()),
        false => version.to_string(),
    }
}

/// Formats the time in UTC, to the millisecond.
pub(crate) fn stamp(ms: u64) -> String {
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_millis(moment).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_with_units_or_as_plain_seconds() {
        for (text, millis) in [("5s", 5_000), ("1m30s", 90_000), ("500ms", 500), ("15", 15_000), ("0.5", 500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "x", "-1", "0", "0s", "1e999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_shown_with_two_units_at_most() {
        let shown = [0, 850, 3_249, 12_000, 252_000, 11_100_000, 1_036_800_000];
        let shown = shown.map(|millis| brief(Duration::from_millis(millis)));
        assert_eq!(shown, ["0ms", "850ms", "3.2s", "12s", "4m12s", "3h05m", "12d"]);
        assert_eq!(moment(1_700_000_000_000), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn labels_after_the_year_9999_are_shown_verbatim() {
        assert_eq!(moment(253_402_300_799_999), "9999-12-31T23:59:59Z");
        for late in [253_402_300_800_000, (1 << 48) - 1, 1 << 50, u64::MAX] {
            assert_eq!(moment(late), "?", "{late}");
        }
        for label in ["7Z000000000000000000000000", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"] {
            assert_eq!(label_time(label.parse().unwrap()), label);
        }
        assert_eq!(label_time("01HF7YAT000000000000000000".parse().unwrap()), "2023-11-14T22:13:20Z");
    }
}
