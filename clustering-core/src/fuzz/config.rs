use std::time::Duration;

use proptest::{option, prelude::*, sample::select};

use super::cases;
use crate::config::{Backoff, Config, Laggards};

/// Generates usual, unusual and extreme durations.
fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0..20_000u64).prop_map(Duration::from_millis),
        1 => select(vec![0, 1, 1_000, 86_400_000, 86_400_001, u64::MAX]).prop_map(Duration::from_millis),
        1 => any::<Duration>(),
        1 => Just(Duration::MAX),
    ]
}

prop_compose! {
    fn times()(
        ttl in time(),
        renew_every in option::of(time()),
        leadership in option::of(time()),
        call_timeout in option::of(time()),
        (first, max) in (time(), time()),
        stabilize_timeout in option::of(time()),
        warn_after in time(),
        evict in option::of(time()),
        stop_timeout in time(),
    ) -> Config {
        let mut config = Config::default();
        (config.ttl, config.renew_every) = (ttl, renew_every);
        (config.leadership, config.call_timeout) = (leadership, call_timeout);
        (config.stabilize_retry, config.publish_gap) = (Backoff::new(first, max), Backoff::new(first, max));
        (config.stabilize_timeout, config.warn_after, config.stop_timeout) = (stabilize_timeout, warn_after, Some(stop_timeout));
        if let Some(after) = evict {
            config.laggards = Laggards::Evict { after };
        }
        config
    }
}

proptest! {
    #![proptest_config(cases())]

    /// A configuration is either refused with the name of a field, or its deadlines are in the order that P6 requires.
    #[test]
    fn fuzz_accepted_times_satisfy_the_order_of_deadlines(config in times()) {
        match config.validate() {
            Ok(()) => {
                let ttl = config.ttl;
                let renew_every = config.renew_every.unwrap_or(ttl / 3);
                let leadership = config.leadership.unwrap_or(ttl * 2 / 3);
                let call_timeout = config.call_timeout.unwrap_or(ttl / 6);
                prop_assert!(renew_every < leadership && leadership < ttl);
                prop_assert!(call_timeout * 2 < leadership.max(ttl * 2 / 3));
                prop_assert!(!config.stabilize_retry.first.is_zero() && !config.publish_gap.first.is_zero());
            }
            Err(error) => prop_assert!(!error.field.is_empty() && error.to_string().contains(error.field)),
        }
    }

    #[test]
    fn fuzz_a_backoff_grows_and_never_exceeds_its_limit(first in time(), max in time(), failures in any::<u32>()) {
        let backoff = Backoff::new(first, max);
        let delay = backoff.after(failures);
        prop_assert!(delay <= max && backoff.after(failures.saturating_add(1)) >= delay);
    }
}
