use crate::{
    machine::{Input, Output, Token},
    store::StoreError,
};

/// Returns the token of a call.
pub(super) fn token_of(call: &Output) -> Option<Token> {
    match call {
        Output::Grant { token, .. }
        | Output::Renew { token, .. }
        | Output::Revoke { token, .. }
        | Output::Read { token, .. }
        | Output::Watch { token, .. }
        | Output::Commit { token, .. } => Some(*token),
        _ => None,
    }
}

/// Returns the reply with which a call fails.
pub(super) fn refusal(call: &Output, error: StoreError) -> Input {
    match *call {
        Output::Grant { token, .. } => Input::Granted { token, result: Err(error) },
        Output::Renew { token, .. } => Input::Renewed { token, result: Err(error) },
        Output::Revoke { token, .. } => Input::Revoked { token, result: Err(error) },
        Output::Read { token, .. } => Input::Read { token, result: Err(error) },
        Output::Watch { token, .. } => Input::WatchOpened { token, result: Err(error) },
        Output::Commit { token, .. } => Input::Committed { token, result: Err(error) },
        _ => unreachable!("not a store call: {call:?}"),
    }
}
