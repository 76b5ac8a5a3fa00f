//! `run`: health checks of the program.

use std::{fs, time::Duration};

use clustering_testkit::{
    etcd::EtcdServer,
    process::{Folder, Process},
};

use crate::{
    harness::{nodes, soon, stop},
    run::{SHELL, present, service},
    watch::printed,
};

/// A service in Python that answers health checks. It is healthy while the file `well` exists, and hangs while `hang`
/// exists.
const WEB: &str = "
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while os.path.exists('hang'):
            time.sleep(0.05)
        self.send_response(200 if self.path == '/health?x=1' and os.path.exists('well') else 503)
        self.end_headers()
    def log_message(self, *_):
        pass
os.chdir(sys.argv[1])
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
with open('port.new', 'w') as file:
    file.write(str(server.server_address[1]))
os.rename('port.new', 'port')
server.serve_forever()
";

#[tokio::test]
async fn p11_a_program_that_its_url_reports_unhealthy_leaves_the_cluster() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let web = Process::builder("python3").args(["-c", WEB, folder.path().to_str().unwrap()]).spawn().unwrap();
    soon("the port", async {
        while !file("port").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let url = format!("http://127.0.0.1:{}/health?x=1", fs::read_to_string(file("port")).unwrap());
    let quick = ["--health-interval", "100ms", "--health-deadline", "1s", "--health-failures", "2"];
    let options = [&["--health-url", &url][..], &quick].concat();
    let b = nodes(&etcd, &["b"]).await;
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    // The node does not join before the program is healthy.
    printed(&a, &["unhealthy: ", "/health?x=1: 503 Service Unavailable"]).await;
    present(&b[0], &["b"]).await;
    fs::write(file("well"), "").unwrap();
    present(&b[0], &["a", "b"]).await;
    fs::remove_file(file("well")).unwrap();
    present(&b[0], &["b"]).await;
    printed(&a, &["healthy", "unhealthy after 2 failed checks: ", "session lost: the node is not healthy"])
        .await;
    fs::write(file("well"), "").unwrap();
    present(&b[0], &["a", "b"]).await;
    // A check that hangs fails too.
    fs::write(file("hang"), "").unwrap();
    present(&b[0], &["b"]).await;
    fs::remove_file(file("hang")).unwrap();
    present(&b[0], &["a", "b"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    drop(web);
    stop(b).await;
}

#[tokio::test]
async fn p11_a_program_that_its_command_reports_unhealthy_leaves_the_cluster() {
    let etcd = EtcdServer::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let ill = folder.path().join("ill");
    let check = format!("if [ -e {} ]; then echo the disk is gone >&2; exit 1; fi", ill.display());
    let options = ["--health", &check, "--health-interval", "100ms", "--health-failures", "1"];
    let b = nodes(&etcd, &["b"]).await;
    let a = service(&etcd, &options, &["sh", "-c", SHELL]).spawn().unwrap();
    present(&b[0], &["a", "b"]).await;
    fs::write(&ill, "").unwrap();
    printed(&a, &["unhealthy: exit code 1: the disk is gone\n"]).await;
    present(&b[0], &["b"]).await;
    fs::remove_file(&ill).unwrap();
    present(&b[0], &["a", "b"]).await;
    a.terminate().unwrap();
    assert_eq!(soon("the end of the command", a.wait()).await.unwrap().code(), Some(7), "{}", a.log());
    stop(b).await;
}
