//! Output of the commands. Everything that they print goes through this module.
//!
//! Names, URIs, metadata and reasons are written by other nodes and may contain escape sequences or line breaks. They
//! are escaped here, so that a record cannot forge lines or columns or control the terminal.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

use clap::{Args, ValueEnum};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::failure::Failure;

/// The format of a command's output.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
    /// Output format; --write-out json is the same as --json
    #[arg(long, short = 'w', value_name = "FORMAT", conflicts_with = "json")]
    write_out: Option<WriteOut>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WriteOut {
    /// Text for people
    #[value(alias = "table")]
    Simple,
    /// JSON for programs
    Json,
}

impl Format {
    pub(crate) fn is_json(self) -> bool {
        self.json || self.write_out == Some(WriteOut::Json)
    }
}

/// Prints a line. If the reader has closed the pipe, as `head` does, exits without an error.
pub(crate) fn line(text: impl AsRef<str>) {
    print(&plain(text.as_ref()));
}

/// Prints lines.
pub(crate) fn lines(lines: impl IntoIterator<Item = impl AsRef<str>>) {
    lines.into_iter().for_each(line);
}

/// Prints cells, separated by tabs.
pub(crate) fn cells(cells: &[&str]) {
    print(&cells.iter().map(|cell| plain(cell)).collect::<Vec<_>>().join("\t"));
}

/// Prints a value as JSON, on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = json_text(value)
        .map_err(|error| Failure::unknown(format!("cannot write the output as JSON: {error}")))?;
    print(&text);
    Ok(())
}

/// Prints a line to the standard error.
pub(crate) fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", plain(text.as_ref()));
}

/// Prints a value as JSON to the standard error, on one line.
pub(crate) fn note_json(value: &impl Serialize) {
    let _ = writeln!(io::stderr().lock(), "{}", json_text(value).unwrap_or_default());
}

/// Prints a question to the standard error, without a line break.
pub(crate) fn prompt(text: impl AsRef<str>) {
    let mut err = io::stderr().lock();
    let _ = write!(err, "{} ", plain(text.as_ref())).and_then(|()| err.flush());
}

fn print(text: &str) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Escapes control and invisible characters, as in `\n` and `\u{1b}`.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    escape(text, |character, escaped| match character {
        '\n' => escaped.push_str("\\n"),
        '\r' => escaped.push_str("\\r"),
        '\t' => escaped.push_str("\\t"),
        other => drop(write!(escaped, "\\u{{{:x}}}", u32::from(other))),
    })
}

/// Formats the value as JSON that is safe to show on a terminal. In JSON, control and invisible characters occur only
/// inside strings, where an escape sequence has the same meaning.
fn json_text(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    let escaped = escape(&text, |character, escaped| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    });
    Ok(escaped.into_owned())
}

fn escape(text: &str, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hidden(character) { write(character, &mut escaped) } else { escaped.push(character) }
    }
    Cow::Owned(escaped)
}

/// True for characters that move the cursor, change what follows, or cannot be seen: C0, DEL and C1, line and paragraph
/// separators, and Unicode's format characters, such as those that change the direction of text.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Pads the text with spaces to that many terminal columns. Some characters take two columns.
pub(crate) fn padded(text: &str, width: usize) -> String {
    let padding = width.saturating_sub(text.width());
    format!("{text}{:padding$}", "")
}

/// Formats a table. Each column is as wide as its widest cell; the last column is not padded.
pub(crate) fn table(head: &[&str], rows: &[impl AsRef<[String]>]) -> Vec<String> {
    let mut table: Vec<Vec<String>> = vec![head.iter().map(|title| (*title).to_owned()).collect()];
    let escaped = |row: &[String]| row.iter().map(|cell| plain(cell).into_owned()).collect();
    table.extend(rows.iter().map(|row| escaped(row.as_ref())));
    let width = |column: usize| table.iter().map(|row| row[column].width()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| padded(cell, *width)).collect();
        cells.join("  ").trim_end().to_owned()
    };
    table.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "zwölf", ""], ["long-name", "1", "x"]].map(|row| row.map(str::to_owned));
        let shown = table(&["NAME", "N", "REST"], &rows);
        assert_eq!(shown, ["NAME       N      REST", "a          zwölf", "long-name  1      x"]);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let rows = [["节点", "x"], ["e\u{301}", "y"], ["node", "z"]].map(|row| row.map(str::to_owned));
        let shown = table(&["NAME", "N"], &rows);
        assert_eq!(shown, ["NAME  N", "节点  x", "e\u{301}     y", "node  z"]);
    }

    #[test]
    fn control_and_invisible_characters_are_escaped() {
        for (text, shown) in [
            ("plain, zwölf, 节点 \\n", "plain, zwölf, 节点 \\n"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b[2J\x07\x7f\u{9b}1m", "\\u{1b}[2J\\u{7}\\u{7f}\\u{9b}1m"),
            ("\u{202e}gpj\u{2066}\u{200b}\u{feff}", "\\u{202e}gpj\\u{2066}\\u{200b}\\u{feff}"),
            ("\u{2028}\u{e0041}", "\\u{2028}\\u{e0041}"),
        ] {
            assert_eq!(plain(text), shown);
        }
        let rows = [["a\tb\nc".to_owned()]];
        assert_eq!(table(&["X"], &rows), ["X", "a\\tb\\nc"]);
    }

    #[test]
    fn escaped_json_has_the_same_meaning_and_is_safe_on_a_terminal() {
        let text = "a\n\x1b\x7f\u{9b}\u{202e}\u{e0041}ö";
        let json = json_text(&text).unwrap();
        assert_eq!(json, r#""a\n\u001b\u007f\u009b\u202e\udb40\udc41ö""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
