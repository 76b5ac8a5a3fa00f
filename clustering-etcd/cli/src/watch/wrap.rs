use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Breaks text into lines of at most `width` columns: between words, and within a word that is longer than a line.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        for character in word.chars() {
            if line.width() + character.width().unwrap_or_default() > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(character);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_the_width() {
        assert_eq!(wrap("node-1 joined, node-2 left", 14), ["node-1 joined,", "node-2 left"]);
        assert_eq!(wrap("abcdefgh ij", 5), ["abcde", "fgh", "ij"]);
        assert_eq!(wrap("节点节点 x", 5), ["节点", "节点", "x"]);
        assert_eq!(wrap("", 5), [""]);
        for width in 0..12 {
            let lines = wrap("a node-000 节点 refused: its disk is full", width);
            assert!(lines.iter().all(|line| line.width() <= width.max(2)), "{width}: {lines:?}");
        }
    }
}
