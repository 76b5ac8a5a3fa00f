use std::{sync::Arc, time::Duration};

use clustering_core::store::Signals;
use tokio::sync::mpsc::UnboundedSender;

/// Handles the notifications of the server: `*`, the hexadecimal keys of a commit, or the TTL of a granted lease.
#[derive(Clone)]
pub(crate) struct Notifications {
    pub(crate) signals: Arc<Signals>,
    pub(crate) granted: UnboundedSender<Duration>,
}

impl Notifications {
    pub(crate) fn handle(&self, text: &str) {
        if let Some(ttl) = text.strip_prefix("ttl ").and_then(|ms| ms.parse().ok()) {
            // The keeper has ended only if the store is gone.
            let _ = self.granted.send(Duration::from_millis(ttl));
            return;
        }
        match text.split(' ').map(key).collect::<Option<Vec<String>>>() {
            Some(keys) => keys.iter().for_each(|key| self.signals.raise(key)),
            // The notification is `*`, or has a format of a newer release: any key may have changed.
            None => self.signals.raise_all(),
        }
    }
}

/// Decodes a hexadecimal key.
fn key(text: &str) -> Option<String> {
    let digits = text.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect::<Option<Vec<u8>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    if !rest.is_empty() {
        return None;
    }
    String::from_utf8(bytes).ok().filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_and_anything_else_is_not_a_key() {
        assert_eq!(key("612f62"), Some("a/b".to_owned()));
        assert_eq!(key("c3a400"), Some("ä\0".to_owned()));
        for text in ["", "*", "6", "616", "zz", "ff", "+1"] {
            assert_eq!(key(text), None, "{text:?}");
        }
    }
}
