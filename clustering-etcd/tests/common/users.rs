//! Etcd with authentication.

use clustering_etcd::{Credentials, EtcdConfig};
use clustering_testkit::etcd::{EtcdBuilder, EtcdServer};
use etcd_client::{Client, Permission, PermissionType, RoleRevokePermissionOptions};

/// The user of the tests, its password, and the prefix that its role may read and write.
pub(crate) const USER: &str = "ingest";
pub(crate) const PASSWORD: &str = "hunter2-the-password";
pub(crate) const PREFIX: &str = "telemetry/ingest/";

/// Starts an etcd that has the user. The fixture's own calls are made by `root`.
pub(crate) async fn server(builder: EtcdBuilder) -> EtcdServer {
    let etcd = builder.start().await.expect("etcd accepts the call");
    introduce(&etcd).await;
    etcd
}

/// Creates the user and `root`, enables authentication, and makes the fixture's own calls log in as `root`.
pub(crate) async fn introduce(etcd: &EtcdServer) {
    let mut client = etcd.client().await.expect("etcd accepts the call");
    client.user_add("root", "root", None).await.expect("etcd accepts the call");
    client.role_add("root").await.expect("etcd accepts the call");
    client.user_grant_role("root", "root").await.expect("etcd accepts the call");
    client.user_add(USER, PASSWORD, None).await.expect("etcd accepts the call");
    client.role_add(USER).await.expect("etcd accepts the call");
    grant(&mut client).await;
    client.user_grant_role(USER, USER).await.expect("etcd accepts the call");
    client.auth_enable().await.expect("etcd accepts the call");
    etcd.log_in("root", "root");
}

/// Returns a builder for an etcd whose tokens expire after a second. They are JSON Web Tokens, since the TTL of simple
/// tokens cannot be set before etcd 3.5.
pub(crate) fn short_tokens(folder: &tempfile::TempDir) -> EtcdBuilder {
    tokens(folder, "1s")
}

/// Returns a builder for an etcd with JSON Web Tokens of this TTL, which contain the auth revision at which they were
/// issued.
pub(crate) fn tokens(folder: &tempfile::TempDir, ttl: &str) -> EtcdBuilder {
    let secret = folder.path().join("tokens");
    std::fs::write(&secret, "the key that tokens are signed with").expect("the directory is writable");
    let kind = format!("--auth-token=jwt,priv-key={},sign-method=HS256,ttl={ttl}", secret.display());
    EtcdServer::builder().args([kind])
}

/// Grants the permissions to the user's role.
pub(crate) async fn grant(client: &mut Client) {
    let all = Permission::new(PermissionType::Readwrite, PREFIX).with_prefix();
    client.role_grant_permission(USER, all).await.expect("etcd accepts the call");
}

/// Revokes the permissions of the user's role.
pub(crate) async fn withdraw(client: &mut Client) {
    let all = RoleRevokePermissionOptions::new().with_prefix();
    client.role_revoke_permission(USER, PREFIX, Some(all)).await.expect("etcd accepts the call");
}

/// Returns a configuration with the user, and with the prefix that the user may access.
pub(crate) fn config(etcd: &EtcdServer) -> EtcdConfig {
    let mut config = EtcdConfig::new(etcd.endpoints()).expect("a server has endpoints");
    config.credentials = Some(Credentials::new(USER, PASSWORD));
    config.prefix = PREFIX.into();
    config
}

/// Returns the number of calls of a method. A login is `Authenticate`.
pub(crate) async fn calls(etcd: &EtcdServer, method: &str) -> f64 {
    let metrics = etcd.metrics().await.expect("etcd accepts the call");
    metrics.sum("grpc_server_started_total", &[("grpc_method", method)])
}

/// Returns when all tokens that were issued before have expired.
pub(crate) async fn tokens_expire(etcd: &EtcdServer) {
    let mut witness = etcd.client().await.expect("etcd accepts the call");
    loop {
        match witness.get("\0", None).await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Err(error) if error.to_string().contains("invalid auth token") => return,
            Err(error) => panic!("{error}"),
        }
    }
}
