/// Returns the range of keys that start with `prefix`: from the first key (included) to the end (excluded), or
/// without an end if every key starts with it.
///
/// The bounds are bytes, because the end may not be valid UTF-8. Compare keys as bytes, too: a database with a
/// collation sorts text differently.
///
/// ```
/// use clustering_core::store::prefix_range;
///
/// assert_eq!(prefix_range("view/"), (b"view/".to_vec(), Some(b"view0".to_vec())));
/// assert_eq!(prefix_range(""), (Vec::new(), None));
/// ```
pub fn prefix_range(prefix: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut end = prefix.as_bytes().to_vec();
    // UTF-8 contains no byte 0xff, so the last byte can always be incremented.
    let next = end.last().map(|last| last + 1);
    let end = next.map(|next| {
        end.pop();
        end.push(next);
        end
    });
    (prefix.as_bytes().to_vec(), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_holds_exactly_the_keys_with_the_prefix() {
        let keys = [
            "",
            "a",
            "a/",
            "a/b",
            "a0",
            "b",
            "del\u{7f}",
            "del\u{7f}x",
            "del\u{80}",
            "nul",
            "nul\0",
            "nul\0x",
        ];
        let more = ["top", "top\u{10ffff}", "top\u{10ffff}x", "toq", "\u{10ffff}\u{10ffff}"];
        let all: Vec<&str> = keys.into_iter().chain(more).collect();
        for prefix in &all {
            let (start, end) = prefix_range(prefix);
            for key in &all {
                let within =
                    key.as_bytes() >= &start[..] && end.as_ref().is_none_or(|end| key.as_bytes() < &end[..]);
                assert_eq!(within, key.starts_with(prefix), "{key:?} under {prefix:?}");
            }
        }
    }
}
