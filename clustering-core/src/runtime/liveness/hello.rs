use ulid::ULID_LEN;

use crate::node::ProcessId;

/// The protocol and its version, which may only change together with the length of the line.
const PROTOCOL: &[u8] = b"clustering/1 ";

/// The line by which a process identifies itself, such as `clustering/1 01ARZ3NDEKTSV4RRFFQ69G5FAV`, with a line feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello([u8; Hello::LEN]);

impl Hello {
    /// Length of every hello, so that a reader never waits for more bytes than were sent.
    pub(super) const LEN: usize = PROTOCOL.len() + ULID_LEN + 1;

    pub(super) fn of(process: ProcessId) -> Self {
        let mut bytes = [b'\n'; Hello::LEN];
        bytes[..PROTOCOL.len()].copy_from_slice(PROTOCOL);
        bytes[PROTOCOL.len()..Hello::LEN - 1].copy_from_slice(process.to_string().as_bytes());
        Hello(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the process that sent this line; `None` if the line is not a hello.
    pub(super) fn parse(line: &[u8; Hello::LEN]) -> Option<ProcessId> {
        let id = line.strip_prefix(PROTOCOL)?.strip_suffix(b"\n")?;
        ProcessId::try_from(std::str::from_utf8(id).ok()?.to_owned()).ok()
    }
}
