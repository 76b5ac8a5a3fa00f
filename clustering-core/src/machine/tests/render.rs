use std::fmt::Write;

use crate::{
    event::Event,
    keyspace::Keyspace,
    machine::{Output, Purpose, Reply},
    record::{
        ReadinessOutcome, ReadinessRecord, ReleasedRecord, RequestRecord, StableRecord, VersionRecord, decode,
    },
    store::{Key, Operation, Txn},
    version::Version,
};

/// Short names of versions, in the order in which they first appear: V1, V2, …
#[derive(Clone, Default)]
pub(super) struct Names {
    versions: Vec<Version>,
}

/// Returns a key or prefix without the namespace.
pub(super) fn short(keys: &Keyspace, key: &Key) -> String {
    let namespace = format!("{}/", keys.namespace());
    key.strip_prefix(namespace.as_str()).unwrap_or(key).to_owned()
}

impl Names {
    pub(super) fn version(&mut self, version: Version) -> String {
        if !self.versions.contains(&version) {
            self.versions.push(version);
        }
        self.name(version)
    }

    fn name(&self, version: Version) -> String {
        let place = self.versions.iter().position(|known| *known == version);
        place.map_or_else(|| "V?".to_owned(), |place| format!("V{}", place + 1))
    }

    /// Names the versions that the machine publishes.
    pub(super) fn learn(&mut self, outputs: &[Output]) {
        for output in outputs {
            if let Output::Commit { txn, purpose: Purpose::Elect | Purpose::Publish, .. } = output
                && let Some(record) = value::<VersionRecord>(txn, "version")
            {
                self.version(record.version);
            }
        }
    }

    /// Renders an output as one line, without tokens or timeouts.
    pub(super) fn render(&self, output: &Output) -> String {
        match output {
            Output::Grant { ttl, .. } => format!("grant {ttl:?}"),
            Output::Renew { .. } => "renew".to_owned(),
            Output::Revoke { lease, .. } => format!("revoke {lease}"),
            Output::Read { prefix, .. } => format!("read {}", &prefix[2..]),
            Output::Watch { prefix, after, .. } => format!("watch {} after {after}", &prefix[2..]),
            Output::Unwatch { .. } => "unwatch".to_owned(),
            Output::WatchProcesses { endpoints } => {
                let addresses: Vec<&str> = endpoints.iter().map(|endpoint| &*endpoint.address).collect();
                format!("watch processes at {}", addresses.join(" "))
            }
            Output::Commit { txn, purpose, .. } => self.commit(*purpose, txn),
            Output::Stabilize { view, previous, attempt, .. } => {
                let names: Vec<&str> = view.iter().map(|node| node.name.as_str()).collect();
                let mut line = format!("stabilize {} of {}", self.name(view.version()), names.join(" "));
                if let Some(previous) = previous {
                    write!(line, " after {}", self.name(previous.version())).unwrap();
                }
                if *attempt > 1 {
                    write!(line, ", attempt {attempt}").unwrap();
                }
                line
            }
            Output::Retract { slots, .. } => format!("retract {slots}"),
            Output::Release { slots, attempt: 1, .. } => format!("release {slots}"),
            Output::Release { slots, attempt, .. } => format!("release {slots}, attempt {attempt}"),
            Output::Announce { view, term, .. } => {
                format!("announce {} in term {term}", self.name(view.version()))
            }
            Output::CheckHealth { .. } => "check health".to_owned(),
            Output::Supersede { .. } => "supersede".to_owned(),
            Output::Abort { reason, .. } => format!("abort: {reason}"),
            Output::Event(Event::StabilizeRefused { version, attempt, reason, .. }) => {
                format!("* stabilize of {} refused, attempt {attempt}: {reason}", self.name(*version))
            }
            Output::Event(event) => format!("* {}", self.shorten(&event.to_string())),
            Output::Reply { id, reply } => match reply {
                Reply::Done(Ok(())) => format!("reply {}: done", id.0),
                Reply::Version(Ok(version)) => format!("reply {}: {}", id.0, self.name(*version)),
                Reply::Committed(Ok(revision)) => format!("reply {}: committed at {revision}", id.0),
                Reply::Done(Err(error)) | Reply::Version(Err(error)) | Reply::Committed(Err(error)) => {
                    format!("reply {}: {}", id.0, self.shorten(&error.to_string()))
                }
            },
            Output::Stopped { reason } => format!("stopped: {reason}"),
        }
    }

    fn commit(&self, purpose: Purpose, txn: &Txn) -> String {
        match purpose {
            Purpose::Elect | Purpose::Publish => {
                let record: VersionRecord = value(txn, "version").expect("a version");
                let causes: Vec<String> = record.causes.iter().map(ToString::to_string).collect();
                format!("{purpose} {}: {}", self.name(record.version), causes.join(", "))
            }
            Purpose::Acknowledge => {
                let record: ReadinessRecord = value(txn, "").expect("an acknowledgement");
                let version = self.name(record.version);
                match (record.outcome, record.detail) {
                    (ReadinessOutcome::Pending, _) => format!("acknowledge {version} released"),
                    (ReadinessOutcome::Ready, _) => format!("acknowledge {version}"),
                    (ReadinessOutcome::Failed, detail) => {
                        format!("acknowledge {version} failed: {}", detail.unwrap_or_default())
                    }
                }
            }
            Purpose::Confirm => {
                let record: StableRecord = value(txn, "stable").expect("a stable version");
                format!("confirm {}", self.name(record.version))
            }
            Purpose::Permit => {
                let record: ReleasedRecord = value(txn, "released").expect("a released version");
                format!("permit {}", self.name(record.version))
            }
            Purpose::RequestVersion => {
                let record: RequestRecord = value(txn, "request").expect("a request");
                format!("request: {}, {}", record.by.unwrap_or_default(), record.why.unwrap_or_default())
            }
            Purpose::Evict | Purpose::RemoveCrashed => {
                let key = txn.operations()[0].key();
                format!("{purpose} {}", key.rsplit('/').next().expect("a name"))
            }
            purpose => purpose.to_string(),
        }
    }

    /// Replaces versions by their short names, and the ULIDs of incarnations by a placeholder.
    fn shorten(&self, text: &str) -> String {
        let is_ulid = |word: &str| word.len() == 26 && word.chars().all(|c| c.is_ascii_alphanumeric());
        let word = |word: &str| {
            let bare = word.trim_end_matches([',', ':', ';']);
            match bare.parse::<Version>() {
                Ok(version) if self.versions.contains(&version) => word.replace(bare, &self.name(version)),
                Ok(_) if is_ulid(bare) => word.replace(bare, "<ULID>"),
                _ => word.to_owned(),
            }
        };
        text.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }
}

/// Returns the record that a transaction puts under the key that ends with `end`.
pub(super) fn value<T: serde::de::DeserializeOwned>(txn: &Txn, end: &str) -> Option<T> {
    txn.operations().iter().find_map(|operation| match operation {
        Operation::Put { key, value, .. } if key.ends_with(end) => decode(value).ok(),
        _ => None,
    })
}
