//! Etcd with users.

use clustering_etcd::{Credentials, EtcdConfig};
use clustering_testkit::etcd::{EtcdBuilder, EtcdServer};
use etcd_client::{Client, Permission, PermissionType, RoleRevokePermissionOptions};

/// The user of the tests, the password, and what the user's role may read and write.
pub(crate) const USER: &str = "ingest";
pub(crate) const PASSWORD: &str = "hunter2-the-password";
pub(crate) const PREFIX: &str = "telemetry/ingest/";

/// An etcd that knows the user. Its own calls are root's.
pub(crate) async fn server(builder: EtcdBuilder) -> EtcdServer {
    let etcd = builder.start().await.expect("the test server does as it is told");
    introduce(&etcd).await;
    etcd
}

/// Makes the user known, and root, who makes the server's own calls from then on.
pub(crate) async fn introduce(etcd: &EtcdServer) {
    let mut client = etcd.client().await.expect("the test server does as it is told");
    client.user_add("root", "root", None).await.expect("the test server does as it is told");
    client.role_add("root").await.expect("the test server does as it is told");
    client.user_grant_role("root", "root").await.expect("the test server does as it is told");
    client.user_add(USER, PASSWORD, None).await.expect("the test server does as it is told");
    client.role_add(USER).await.expect("the test server does as it is told");
    grant(&mut client).await;
    client.user_grant_role(USER, USER).await.expect("the test server does as it is told");
    client.auth_enable().await.expect("the test server does as it is told");
    etcd.log_in("root", "root");
}

/// For an etcd whose tokens live for a second, whatever its version: those of the simple kind live for 5 minutes before
/// 3.5.
pub(crate) fn short_tokens(folder: &tempfile::TempDir) -> EtcdBuilder {
    tokens(folder, "1s")
}

/// For an etcd whose tokens live for so long, and say at which revision of users and roles they were given.
pub(crate) fn tokens(folder: &tempfile::TempDir, live: &str) -> EtcdBuilder {
    let secret = folder.path().join("tokens");
    std::fs::write(&secret, "the key that tokens are signed with").expect("a file in the temporary folder");
    let kind = format!("--auth-token=jwt,priv-key={},sign-method=HS256,ttl={live}", secret.display());
    EtcdServer::builder().args([kind])
}

/// Gives the user's role the rights.
pub(crate) async fn grant(client: &mut Client) {
    let all = Permission::new(PermissionType::Readwrite, PREFIX).with_prefix();
    client.role_grant_permission(USER, all).await.expect("the test server does as it is told");
}

/// Withdraws them.
pub(crate) async fn withdraw(client: &mut Client) {
    let all = RoleRevokePermissionOptions::new().with_prefix();
    client.role_revoke_permission(USER, PREFIX, Some(all)).await.expect("the test server does as it is told");
}

/// As the user, under the keys that the role is for.
pub(crate) fn config(etcd: &EtcdServer) -> EtcdConfig {
    let mut config = EtcdConfig::new(etcd.endpoints()).expect("a server has endpoints");
    config.credentials = Some(Credentials::new(USER, PASSWORD));
    config.prefix = PREFIX.into();
    config
}

/// How often that method was called. Logins are `Authenticate`.
pub(crate) async fn calls(etcd: &EtcdServer, method: &str) -> f64 {
    let metrics = etcd.metrics().await.expect("the test server does as it is told");
    metrics.sum("grpc_server_started_total", &[("grpc_method", method)])
}

/// Returns when a token that was given before has expired.
pub(crate) async fn tokens_expire(etcd: &EtcdServer) {
    let mut witness = etcd.client().await.expect("the test server does as it is told");
    loop {
        match witness.get("\0", None).await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Err(error) if error.to_string().contains("invalid auth token") => return,
            Err(error) => panic!("{error}"),
        }
    }
}
