//! JSON parsing of records that gives the same result in every build.
//!
//! The records decide which nodes are present, so every node must read the same from them (P1). But Cargo unifies
//! features: any crate of the final program can enable features of `serde_json` that change how its `Value` represents
//! numbers (`arbitrary_precision`) and the order of fields (`preserve_order`). This affects all code that deserializes
//! a value of any type, so this module avoids that: it splits a record into its fields, as texts, and parses each text
//! as the type of its field.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Deepest nesting of arrays and objects.
const DEPTH: usize = 127;

/// The fields of a record, each with the text of its value. If a field occurs twice, the last one counts.
pub(crate) type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// Splits a record into its fields.
///
/// The record must be a JSON object in UTF-8. All of it must be readable, including unknown fields, so that the
/// validity of a record does not depend on the fields that a release knows.
pub(crate) fn fields(record: &[u8]) -> Result<Fields<'_>, String> {
    let text = std::str::from_utf8(record).map_err(|error| error.to_string())?;
    let fields = serde_json::from_str(text).map_err(|error| match error.is_data() {
        true => "it is not a JSON object".to_owned(),
        false => error.to_string(),
    })?;
    check(text)?;
    Ok(fields)
}

/// Returns a value's text without the whitespace between its tokens.
pub(crate) fn compact(value: &RawValue) -> String {
    Tokens(value.get()).collect()
}

/// Checks properties that JSON's grammar leaves open and that parsers treat differently: unpaired surrogates, numbers
/// that exceed the range of a double, and the nesting depth.
fn check(json: &str) -> Result<(), String> {
    let mut depth = 0_usize;
    for token in Tokens(json) {
        match token.as_bytes()[0] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' if token.contains("\\u") => {
                serde_json::from_str::<String>(token).map_err(|error| format!("{token}: {error}"))?;
            }
            b'-' | b'0'..=b'9' if !token.parse::<f64>().is_ok_and(f64::is_finite) => {
                return Err(format!("number out of range: {token}"));
            }
            _ => {}
        }
        if depth > DEPTH {
            return Err(format!("it is nested deeper than {DEPTH} levels"));
        }
    }
    Ok(())
}

/// Splits a text that is known to be JSON into tokens: strings with their quotes, numbers, words, and punctuation.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_ascii_start();
        let length = match rest.as_bytes().first()? {
            b'"' => string(rest),
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            _ => word(rest),
        };
        let (token, rest) = rest.split_at_checked(length).unwrap_or((rest, ""));
        self.0 = rest;
        Some(token)
    }
}

/// Returns the length of the string at the start of `text`, quotes included.
fn string(text: &str) -> usize {
    let mut escaped = true;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 1)
}

/// Returns the length of the number or word at the start of `text`.
fn word(text: &str) -> usize {
    let ends = |byte: u8| byte.is_ascii_whitespace() || b"{}[],:\"".contains(&byte);
    text.bytes().position(ends).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(record: &str) -> Vec<(String, String)> {
        let fields = fields(record.as_bytes()).unwrap();
        fields.into_iter().map(|(field, value)| (field, compact(value))).collect()
    }

    #[test]
    fn each_field_keeps_its_text_as_written() {
        let record = "\n{ \"b\" : [ 1.50, -0 ,1E5, {\"z\": 1, \"a\" :2} ],\t\"a\\u0031\": \" \\\" { \\\\\" , \"\": true} ";
        let expected = [("", "true"), ("a1", r#"" \" { \\""#), ("b", r#"[1.50,-0,1E5,{"z":1,"a":2}]"#)];
        assert_eq!(texts(record), expected.map(|(field, text)| (field.to_owned(), text.to_owned())));
        assert_eq!(texts(r#"{"a": 1, "\u0061": 2}"#), [("a".to_owned(), "2".to_owned())]);
        assert!(texts("{}").is_empty());
    }

    #[test]
    fn values_on_which_parsers_differ_are_refused_at_any_depth() {
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        for good in ["1e308", "-1.7976931348623157e308", "1e-999", "0e999", r#""\ud83d\ude00""#, &deep(126)] {
            assert!(fields(format!(r#"{{"x": [{good}]}}"#).as_bytes()).is_ok() || good.len() > 99, "{good}");
            assert!(fields(format!(r#"{{"x": {good}}}"#).as_bytes()).is_ok(), "{good}");
        }
        let long = "9".repeat(400);
        for bad in
            ["1e999", "-1e309", &long, r#""\ud83d""#, r#""\ude00\ud83d""#, r#"{"\ud800": 1}"#, &deep(127)]
        {
            assert!(fields(format!(r#"{{"x": {bad}}}"#).as_bytes()).is_err(), "{bad}");
        }
        for bad in ["", "1", "[]", "null", "{", "{}x", "{} {}", r#"{"a": 01}"#, r#"{"a": "	"}"#, r#"{"a" 1}"#]
        {
            assert!(fields(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(fields(b"{\"x\": \"\xf0\"}").is_err());
    }
}
