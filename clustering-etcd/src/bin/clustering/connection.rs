use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    io::{self, IsTerminal, Read},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use clustering_etcd::{EtcdConfig, EtcdStore, Namespace, Operator};

use crate::{
    failure::{Failure, UNKNOWN},
    times::duration,
};

/// Where etcd is, who asks, and which cluster is meant. The flags are those of etcdctl, and win over the variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// The cluster's namespace [env: CLUSTERING_NAMESPACE]
    #[arg(
        long,
        short,
        global = true,
        value_name = "NAME",
        env = "CLUSTERING_NAMESPACE",
        hide_env = true,
        default_value = "cluster"
    )]
    pub(crate) namespace: String,
    /// Etcd's members, with commas [env: ETCD_ENDPOINTS, or ETCD_HOST and ETCD_PORT, or ETCDCTL_ENDPOINTS]
    /// [default: localhost:2379]
    #[arg(long, global = true, value_name = "LIST")]
    endpoints: Option<String>,
    /// The user, or user:password; without a password it is read from --password-file, ETCDCTL_PASSWORD or the terminal
    /// [env: ETCDCTL_USER]
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// The password. Others on this machine can see it in the list of processes: prefer --password-file
    /// [env: ETCDCTL_PASSWORD]
    #[arg(long, global = true, value_name = "TEXT", conflicts_with = "password_file")]
    password: Option<String>,
    /// A file whose first line is the password; - for standard input
    #[arg(long, global = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A file with the certificates of the CA that etcd's is of [env: ETCDCTL_CACERT]
    #[arg(long, global = true, value_name = "FILE")]
    cacert: Option<OsString>,
    /// A file with the client's certificate [env: ETCDCTL_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    cert: Option<OsString>,
    /// A file with the client's key [env: ETCDCTL_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    key: Option<OsString>,
    /// Whether to speak without TLS; false asks for TLS also without the files above [env: ETCDCTL_INSECURE_TRANSPORT]
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    insecure_transport: Option<String>,
    /// Use members from etcd's member list while none of the endpoints can be reached [env: ETCD_FOLLOW_MEMBERS]
    /// [default: true]
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    follow_members: Option<String>,
    /// How long making a connection may take [default: 1s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    dial_timeout: Option<Duration>,
    /// How long a command that does not wait for something may take in all
    #[arg(long, global = true, value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub(crate) command_timeout: Duration,
}

/// The flags and the variables that they stand for.
const FLAGS: [(&str, &str); 8] = [
    ("--endpoints", "ETCD_ENDPOINTS"),
    ("--user", "ETCDCTL_USER"),
    ("--password", "ETCDCTL_PASSWORD"),
    ("--cacert", "ETCDCTL_CACERT"),
    ("--cert", "ETCDCTL_CERT"),
    ("--key", "ETCDCTL_KEY"),
    ("--insecure-transport", "ETCDCTL_INSECURE_TRANSPORT"),
    ("--follow-members", "ETCD_FOLLOW_MEMBERS"),
];

/// Environment variables that contain a password. Programs and hooks do not inherit them.
pub(crate) fn secrets() -> impl Iterator<Item = &'static str> {
    let has_password = |user: OsString| user.to_string_lossy().contains(':');
    let user = env::var_os("ETCDCTL_USER").is_some_and(has_password).then_some("ETCDCTL_USER");
    ["ETCDCTL_PASSWORD"].into_iter().chain(user)
}

impl Connection {
    pub(crate) fn namespace(&self) -> Result<Namespace, Failure> {
        // Set but empty is what an unset variable of a template leaves behind.
        let given = if self.namespace.is_empty() { "cluster" } else { &self.namespace };
        Ok(Namespace::parse(given)?)
    }

    /// The store, not asked yet: the first call shows whether it can be reached.
    pub(crate) fn store(&self) -> Result<EtcdStore, Failure> {
        Ok(EtcdStore::new(self.config()?)?)
    }

    pub(crate) fn operator(&self) -> Result<Operator, Failure> {
        let mut config = self.config()?;
        // Somebody looks on, and wants to know soon that etcd is away.
        config.watch_resume = Duration::from_secs(1);
        Ok(Operator::new(EtcdStore::new(config)?, self.namespace()?, who()))
    }

    /// Whether anybody said where etcd is.
    pub(crate) fn is_given(&self) -> bool {
        let names = ["ETCD_ENDPOINTS", "ETCD_HOST", "ETCD_PORT", "ETCDCTL_ENDPOINTS"];
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        self.endpoints.is_some() || names.into_iter().any(is_set)
    }

    /// The flags that lead another process of this program to the same etcd, without passwords: those it has from a file
    /// or from the environment.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let text = |text: &Option<String>| text.clone().map(OsString::from);
        let file = self.password_file.clone().map(OsString::from);
        let flags = [
            ("--endpoints", text(&self.endpoints)),
            ("--user", text(&self.user)),
            ("--password-file", file),
            ("--cacert", self.cacert.clone()),
            ("--cert", self.cert.clone()),
            ("--key", self.key.clone()),
        ];
        let mut arguments = Vec::new();
        for (flag, value) in flags {
            arguments.extend(value.map(|value| [flag.into(), value]).into_iter().flatten());
        }
        for (flag, value) in
            [("--insecure-transport", &self.insecure_transport), ("--follow-members", &self.follow_members)]
        {
            arguments.extend(value.as_ref().map(|value| format!("{flag}={value}").into()));
        }
        arguments
    }

    /// Bounds what is to be quick.
    pub(crate) async fn quick<T, E: Into<Failure>>(
        &self,
        what: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.command_timeout, what).await {
            Ok(done) => done.map_err(Into::into),
            Err(_) => {
                let text = format!("no answer within {:?}", self.command_timeout);
                Err(Failure::new(UNKNOWN, text).hint("see --command-timeout; is etcd overloaded?"))
            }
        }
    }

    fn config(&self) -> Result<EtcdConfig, Failure> {
        let given = self.given()?;
        let variable = |name: &str| given.get(name).cloned().or_else(|| env::var_os(name));
        let mut config = EtcdConfig::from_variables(variable).map_err(|error| {
            // Whoever gave flags knows nothing of variables.
            let mut text = error.to_string();
            for (flag, variable) in FLAGS {
                if given.contains_key(variable) {
                    text = text.replace(variable, flag);
                }
            }
            Failure::new(UNKNOWN, text)
        })?;
        if let Some(dial) = self.dial_timeout {
            config.connect_timeout = dial;
            config.request_timeout = config.request_timeout.max(dial + Duration::from_secs(1));
        }
        // Node records are small, and thousands of them fit into one reply.
        config.page = 10_000;
        Ok(config)
    }

    /// What the flags say, by the variables that they stand for.
    fn given(&self) -> Result<BTreeMap<&'static str, OsString>, Failure> {
        let text = |text: &Option<String>| text.clone().map(OsString::from);
        let values = [
            text(&self.endpoints),
            text(&self.user),
            text(&self.password),
            self.cacert.clone(),
            self.cert.clone(),
            self.key.clone(),
            text(&self.insecure_transport),
            text(&self.follow_members),
        ];
        let mut given: BTreeMap<_, _> =
            FLAGS.iter().zip(values).filter_map(|((_, variable), value)| Some((*variable, value?))).collect();
        if let Some(file) = &self.password_file {
            given.insert("ETCDCTL_PASSWORD", password_in(file)?.into());
        }
        // A user that is given is meant with its own password, not with one that the environment has for another.
        let set =
            |name: &str| given.contains_key(name) || env::var_os(name).is_some_and(|value| !value.is_empty());
        let user = given.get("ETCDCTL_USER").cloned().or_else(|| env::var_os("ETCDCTL_USER"));
        let user = user.and_then(|user| user.into_string().ok()).unwrap_or_default();
        if !user.is_empty() && !user.contains(':') && !set("ETCDCTL_PASSWORD") {
            given.insert("ETCDCTL_PASSWORD", ask_for_password(&user)?.into());
            given.insert("ETCDCTL_USER", user.into());
        } else if user.contains(':')
            && self.user.is_some()
            && self.password.is_none()
            && self.password_file.is_none()
        {
            given.insert("ETCDCTL_PASSWORD", OsString::new());
        }
        Ok(given)
    }
}

fn password_in(file: &PathBuf) -> Result<String, Failure> {
    let failure =
        |error: io::Error| Failure::new(UNKNOWN, format!("--password-file {}: {error}", file.display()));
    let mut text = String::new();
    match file.as_os_str() == "-" {
        true => io::stdin().read_to_string(&mut text).map(drop).map_err(failure)?,
        false => text = fs::read_to_string(file).map_err(failure)?,
    }
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => {
            Err(Failure::new(UNKNOWN, format!("--password-file {}: its first line is empty", file.display())))
        }
    }
}

fn ask_for_password(user: &str) -> Result<String, Failure> {
    let hint = "give it in ETCDCTL_PASSWORD or with --password-file; on a terminal you are asked for it";
    if !io::stdin().is_terminal() {
        return Err(Failure::new(UNKNOWN, format!("the user {user} needs a password")).hint(hint));
    }
    rpassword::prompt_password(format!("Password of {user}: "))
        .map_err(|error| Failure::new(UNKNOWN, format!("no password of {user}: {error}")).hint(hint))
}

/// Who asks, as it shows in the causes of versions.
fn who() -> String {
    let user = env::var("USER").or_else(|_| env::var("LOGNAME")).unwrap_or_else(|_| "operator".to_owned());
    match rustix::system::uname().nodename().to_str() {
        Ok(host) if !host.is_empty() => format!("{user}@{host}"),
        _ => user,
    }
}
