//! Identifiers of calls and requests.

use std::fmt;

/// Identifies a call, a watch or a run of a callback. Each reply carries the token of its call, so that late replies
/// can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub(super) u64);

#[cfg(test)]
impl Token {
    pub(crate) const fn new(number: u64) -> Self {
        Token(number)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies a request of the user. The caller of the machine chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);
