//! How things are printed.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::{Failure, UNKNOWN};

/// Prints text and a line's end. A reader that has gone, such as `head`, is no reason to fail, but one to end.
pub(crate) fn line(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints a value as JSON: on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::new(UNKNOWN, format!("it cannot be written as JSON: {error}")))?;
    line(text);
    Ok(())
}

/// Says something beside the output.
pub(crate) fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// So many nodes, in words.
pub(crate) fn counted(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

/// Columns, each as wide as its widest cell; the last one ends where its text does.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    let head = head.map(str::to_owned);
    for row in [&head].into_iter().chain(rows) {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [["a", "zwölf", ""], ["long-name", "1", "x"]].map(|row| row.map(str::to_owned));
        let shown = table(["NAME", "N", "REST"], &rows);
        assert_eq!(shown, "NAME       N      REST\na          zwölf\nlong-name  1      x");
    }
}
