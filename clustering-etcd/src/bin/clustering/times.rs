//! Durations and moments, as they are read and shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `5s`, `1m30s`, `500ms`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    };
    let parsed = parsed.map_err(|error| format!("{error}; expected such as 5s, 1m30s or 500ms"))?;
    match parsed.is_zero() {
        true => Err("it must be more than zero".to_owned()),
        false => Ok(parsed),
    }
}

/// Milliseconds since 1970, by this machine's wall clock.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// How long ago that was. Clocks differ: what lies ahead counts as now.
pub(crate) fn since(ms: u64) -> Duration {
    Duration::from_millis(now_ms().saturating_sub(ms))
}

/// Two units at most, as in `850ms`, `3.2s`, `4m12s`, `3h05m`, `12d`.
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

/// That moment in UTC, to the second.
pub(crate) fn moment(ms: u64) -> String {
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(moment).to_string()
}

/// That moment in UTC, to the millisecond.
pub(crate) fn stamp(ms: u64) -> String {
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_millis(moment).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_etcdctl_reads_them_and_plain_seconds_too() {
        for (text, millis) in [("5s", 5_000), ("1m30s", 90_000), ("500ms", 500), ("15", 15_000), ("0.5", 500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "x", "-1", "0", "0s", "1e999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_shown_with_what_matters() {
        let shown = [0, 850, 3_249, 12_000, 252_000, 11_100_000, 1_036_800_000];
        let shown = shown.map(|millis| brief(Duration::from_millis(millis)));
        assert_eq!(shown, ["0ms", "850ms", "3.2s", "12s", "4m12s", "3h05m", "12d"]);
        assert_eq!(moment(1_700_000_000_000), "2023-11-14T22:13:20Z");
    }
}
