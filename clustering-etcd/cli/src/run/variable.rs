//! Values of options that have an environment variable.

/// A value that is missing if its option or variable is empty. Templates produce variables that are set but empty.
#[derive(Clone, Debug)]
pub(super) struct Value<T>(Option<T>);

impl<T: Clone> Value<T> {
    /// Returns the value of an option.
    pub(super) fn of(option: Option<&Self>) -> Option<T> {
        option.and_then(|value| value.0.clone())
    }
}

/// Makes a parser that accepts an empty text.
pub(super) fn optional<T>(
    parse: impl Fn(&str) -> Result<T, String> + Clone,
) -> impl Fn(&str) -> Result<Value<T>, String> + Clone {
    move |text| match text {
        "" => Ok(Value(None)),
        text => parse(text).map(|value| Value(Some(value))),
    }
}

/// Parses a whole number of at least `least`.
pub(super) fn number(least: u32) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |text| match text.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!("expected a whole number from {least} to {}", u32::MAX)),
    }
}

/// Parses `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "expected true or false".to_owned())
}
