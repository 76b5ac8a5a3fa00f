//! The table of failed attempts to connect, with advice for operators.

use rustls::{AlertDescription, CertificateError, pki_types::ServerName};

use super::FailureKind;
use crate::connector::NoConnection;

/// Returns the kind of failure, and a message that says what to do.
pub(super) fn classify(error: &NoConnection) -> (FailureKind, String) {
    use FailureKind::{NotSent, SettingsMismatch};
    match error {
        NoConnection::Network(_)
        | NoConnection::Slow { .. }
        | NoConnection::Closed(_)
        | NoConnection::Lost => (NotSent, error.to_string()),
        // A server that is being stopped does this too, so it does not count as a mismatch.
        NoConnection::ClosedAfterTls { identity: true } => {
            (NotSent, format!("{error}: it may have rejected the client's certificate; see the server's log"))
        }
        NoConnection::ClosedAfterTls { identity: false } => {
            (NotSent, format!("{error}: it may require a client certificate; see the server's log"))
        }
        NoConnection::SpeaksTls => {
            let advice = "write the endpoint as https://, and set tls.ca (ETCDCTL_CACERT)";
            (SettingsMismatch, format!("{error}, but the endpoint is configured without TLS: {advice}"))
        }
        NoConnection::SpeaksPlain => {
            let advice = "write the endpoint as http:// without TLS settings, or enable TLS on the server \
                          (etcd --cert-file and --key-file)";
            (SettingsMismatch, format!("{error}, but the endpoint is configured with TLS: {advice}"))
        }
        NoConnection::SpeaksOther => {
            let advice = "the endpoint must be etcd's client port, not a proxy that only supports HTTP/1";
            (SettingsMismatch, format!("{error}: {advice}"))
        }
        NoConnection::Tls { error, identity } => match mismatch(error, *identity) {
            Some(advice) => (SettingsMismatch, advice),
            // Not explained by settings: corrupted bytes, or a server in trouble.
            None => (NotSent, format!("the TLS handshake failed: {error}")),
        },
    }
}

/// Explains a TLS error that is caused by settings. `identity` is true if the client presented a certificate.
fn mismatch(error: &rustls::Error, identity: bool) -> Option<String> {
    use AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(error) => Some(bad_server_certificate(error)),
        rustls::Error::AlertReceived(alert) if is_about_client_certificate(*alert) => Some(match identity {
            false => {
                "the server requires a client certificate: set tls.identity (ETCDCTL_CERT and ETCDCTL_KEY)"
                    .to_owned()
            }
            true => format!(
                "the server rejected the client's certificate ({alert:?}): it must be valid now, allow client \
                 authentication, and be issued by a CA that the server trusts (etcd --trusted-ca-file)"
            ),
        }),
        rustls::Error::AlertReceived(Alert::HandshakeFailure) if !identity => Some(format!(
            "the server aborted the TLS handshake ({error}): it may require a client certificate (ETCDCTL_CERT and \
             ETCDCTL_KEY), or a TLS version or cipher that this client does not support"
        )),
        rustls::Error::AlertReceived(
            Alert::ProtocolVersion
            | Alert::HandshakeFailure
            | Alert::InsufficientSecurity
            | Alert::UnrecognisedName,
        )
        | rustls::Error::PeerIncompatible(_) => Some(format!(
            "the server and this client have no TLS version (1.2 or 1.3) and cipher in common: {error}"
        )),
        _ => None,
    }
}

fn bad_server_certificate(error: &CertificateError) -> String {
    use CertificateError as Certificate;
    match error {
        Certificate::UnknownIssuer => {
            "the server's certificate is issued by a CA that is not trusted here: set tls.ca (ETCDCTL_CACERT)".to_owned()
        }
        // The CA was created again under its old name.
        Certificate::BadSignature => {
            "the server's certificate is issued by a CA that is not trusted here, although another CA of the same name \
             is: set tls.ca (ETCDCTL_CACERT)"
                .to_owned()
        }
        Certificate::Expired | Certificate::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it on the server, or check this machine's clock".to_owned()
        }
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: check this machine's clock".to_owned()
        }
        Certificate::NotValidForNameContext { expected, presented } => {
            let (expected, presented) = (host(expected), presented.join(", "));
            format!(
                "the server's certificate is not valid for {expected}, only for [{presented}]: use one of these names \
                 in the endpoint, or set tls.server_name to one of them"
            )
        }
        other => format!("the server's certificate cannot be used: {other}"),
    }
}

fn host(expected: &ServerName<'_>) -> String {
    expected.to_str().into_owned()
}

fn is_about_client_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::NoCertificate
            | Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
    )
}
