//! Consistency of the container files in `clustering-etcd/examples` with each other and with the help of the programs.
//! Builds no image, and needs no Kubernetes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clustering_testkit::process::Folder;
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Value, json};

use crate::harness::{command, run};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

fn example(name: &str) -> String {
    fs::read_to_string(root().join("clustering-etcd/examples").join(name)).unwrap()
}

/// Parses the documents of a YAML file into JSON, with merge keys (`<<`) resolved.
fn documents(name: &str) -> Vec<Value> {
    parsed(&example(name))
}

fn parsed(text: &str) -> Vec<Value> {
    Yaml::load_from_str(text).unwrap().iter().map(plain).collect()
}

/// Returns the manifests in the operator's guide: those of its YAML blocks that have a kind.
fn in_the_guide() -> Vec<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/operators.md");
    let guide = fs::read_to_string(path).unwrap();
    let blocks = guide.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(parsed).filter(|documents| !documents[0]["kind"].is_null()).collect()
}

fn plain(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => json!(value),
        Yaml::Value(Scalar::Integer(value)) => json!(value),
        Yaml::Value(Scalar::String(value)) => json!(value),
        Yaml::Sequence(values) => values.iter().map(plain).collect(),
        Yaml::Mapping(entries) => {
            let mut mapping = serde_json::Map::new();
            for (key, value) in entries {
                match (key.as_str().unwrap(), plain(value)) {
                    ("<<", Value::Object(merged)) => mapping.extend(merged),
                    (key, value) => drop(mapping.insert(key.to_owned(), value)),
                }
            }
            mapping.into()
        }
        other => panic!("{other:?} is not expected here"),
    }
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Returns the help of a program.
async fn help(program: &[&str]) -> String {
    match program {
        ["clustering", rest @ ..] => {
            let mut command = command();
            command.args(rest).arg("--help");
            run(command).await.ended(0).to_owned()
        }
        // This test does not build the example, so take its source.
        ["node"] => example("node/arguments.rs"),
        other => panic!("the image has no {other:?}"),
    }
}

/// Checks that the program knows all options of a command line, and that the command line has the options in `wanted`.
async fn check_options(arguments: &[&str], wanted: &[&str]) {
    let own: Vec<_> = arguments.iter().take_while(|argument| **argument != "--").copied().collect();
    let program: Vec<_> = own.iter().take_while(|argument| !argument.starts_with('-')).copied().collect();
    let help = help(&program).await;
    for flag in own.iter().filter(|argument| argument.starts_with("--")) {
        let flag = flag.split('=').next().unwrap();
        let is_known = help.split(|c: char| c.is_whitespace() || ",[=".contains(c)).any(|word| word == flag);
        assert!(is_known, "{flag} is not in the help of {program:?}: {help}");
    }
    for flag in wanted {
        assert!(own.contains(flag), "no {flag} in {arguments:?}");
    }
}

/// Returns the value of an option.
fn after<'a>(arguments: &[&'a str], flag: &str) -> &'a str {
    arguments[arguments.iter().position(|argument| *argument == flag).unwrap() + 1]
}

fn port(address: &str) -> i64 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// Returns the arguments that a comment of the file proposes.
fn commented(text: &str) -> Vec<String> {
    let text: String = text.lines().filter_map(|line| line.strip_prefix('#')).collect::<Vec<_>>().join(" ");
    let list = text.split("args: [").nth(1).unwrap().split("--port").next().unwrap();
    list.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect()
}

/// Checks that the selectors match the labels.
fn check_selectors(service: &Value, set: &Value, budget: &Value) {
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&service["spec"]["selector"], labels);
    assert_eq!(&set["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(set["spec"]["serviceName"], service["metadata"]["name"]);
}

/// Checks that the arguments use variables that are set, and that the command reads the others.
async fn check_variables(container: &Value, arguments: &[&str]) {
    let variables = container["env"].as_array().unwrap();
    let variables: Vec<_> = variables.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    for used in arguments.iter().flat_map(|argument| argument.split("$(").skip(1)) {
        let name = used.split(')').next().unwrap();
        assert!(variables.contains(&name), "$({name}) is not set");
    }
    let help = help(&["clustering", "run"]).await;
    for name in variables.iter().filter(|name| !name.starts_with("POD_")) {
        let mut words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        assert!(words.any(|word| word == *name), "no program reads {name}");
    }
}

/// Checks that all ports are the one at which the program listens, and that the probes use it.
async fn check_ports(service: &Value, container: &Value, listens: i64) {
    let ports = container["ports"].as_array().unwrap();
    let ports: BTreeMap<_, _> = ports
        .iter()
        .map(|port| (port["name"].as_str().unwrap(), port["containerPort"].as_i64().unwrap()))
        .collect();
    assert!(ports.values().all(|port| *port == listens), "{ports:?}, but the program listens at {listens}");
    for served in service["spec"]["ports"].as_array().unwrap() {
        assert_eq!(served["port"].as_i64(), Some(listens));
        assert!(ports.contains_key(served["name"].as_str().unwrap()));
    }
    let help = help(&["clustering", "run"]).await;
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["path"], json!(path));
        assert!(ports.contains_key(get["port"].as_str().unwrap()), "{get}");
        assert!(help.contains(path));
    }
}

/// Checks that the user is not root, and that the image is the one that the Dockerfile builds for this version.
fn check_image(pod: &Value, container: &Value) {
    assert_eq!(pod["securityContext"]["runAsNonRoot"], json!(true));
    let dockerfile = example("Dockerfile");
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    let image = format!("clustering-node:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container["image"], json!(image));
    assert!(dockerfile.contains(&format!("-t {image} ")));
}

#[tokio::test]
async fn the_manifest_matches_the_programs() {
    let documents = documents("kubernetes/node.yaml");
    let kinds: Vec<_> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Service", "StatefulSet", "PodDisruptionBudget"]);
    let versions: Vec<_> = documents.iter().map(|document| &document["apiVersion"]).collect();
    assert_eq!(versions, [&json!("v1"), &json!("apps/v1"), &json!("policy/v1")]);
    let [service, set, budget] = &documents[..] else { panic!() };
    let template = &set["spec"]["template"];
    let pod = &template["spec"];
    let [container] = &pod["containers"].as_array().unwrap()[..] else { panic!("one container") };
    check_selectors(service, set, budget);

    let arguments = texts(&container["args"]);
    check_options(&arguments, &["--namespace", "--name", "--uri", "--probes"]).await;
    check_variables(container, &arguments).await;
    // Each service has a namespace of its own.
    let service_name = service["metadata"]["name"].as_str().unwrap();
    assert_eq!(after(&arguments, "--namespace"), format!("$(POD_NAMESPACE)/{service_name}"));

    let listens = port(after(&arguments, "--probes"));
    check_ports(service, container, listens).await;
    assert_eq!(port(after(&arguments, "--uri")), listens);
    assert_eq!(template["metadata"]["annotations"]["prometheus.io/port"], json!(listens.to_string()));
    check_image(pod, container);

    // The proposal in the comment is consistent too.
    let proposed = commented(&example("kubernetes/node.yaml"));
    let proposed: Vec<_> = proposed.iter().map(String::as_str).collect();
    check_options(&proposed, &["--namespace", "--name", "--uri", "--listen"]).await;
    assert_eq!(port(after(&proposed, "--listen")), listens);
}

/// Returns the seconds of an option such as `30s`.
fn seconds(arguments: &[&str], flag: &str) -> i64 {
    after(arguments, flag).strip_suffix('s').unwrap().parse().unwrap()
}

/// Checks a workload in the guide: its options, variables, ports and times.
async fn check_workload(workload: &Value) {
    let pod = &workload["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let arguments = texts(&container["args"]);
    check_options(&arguments, &["--namespace", "--name", "--uri", "--listen", "--exclusive"]).await;
    check_variables(container, &arguments).await;
    let ports = container["ports"].as_array().unwrap();
    let ports: BTreeMap<_, _> = ports
        .iter()
        .map(|port| (port["name"].as_str().unwrap(), port["containerPort"].as_i64().unwrap()))
        .collect();
    let crashes = arguments.iter().find_map(|argument| argument.strip_prefix("--detect-crashes=")).unwrap();
    let listens = [after(&arguments, "--uri"), after(&arguments, "--listen"), crashes].map(port);
    assert_eq!([ports["http"], ports["probes"], ports["crashes"]], listens);
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "probes"}));
    }
    // A pod that is killed before it has left counts as crashed.
    let (release, stop) = (seconds(&arguments, "--release-timeout"), seconds(&arguments, "--stop-timeout"));
    let kill = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(release < stop && stop + 10 < kill, "{release} {stop} {kill}");
    let min_nodes: i64 = after(&arguments, "--min-nodes").parse().unwrap();
    assert!(min_nodes < workload["spec"]["replicas"].as_i64().unwrap());
    let is_stateful = workload["kind"] == json!("StatefulSet");
    assert_eq!(arguments.contains(&"--restart-grace"), is_stateful, "other names never come back");
    if is_stateful {
        assert!(seconds(&arguments, "--restart-grace") > kill, "the pod ends first");
    }
}

#[tokio::test]
async fn the_manifests_in_the_guide_match_the_command_and_each_other() {
    let manifests = in_the_guide();
    let kinds = manifests.iter().map(|documents| documents.iter().map(|one| one["kind"].as_str().unwrap()));
    let kinds: Vec<Vec<_>> = kinds.map(Iterator::collect).collect();
    let (set, deployment) =
        (["Service", "StatefulSet", "PodDisruptionBudget"], ["Deployment", "PodDisruptionBudget"]);
    assert_eq!(kinds, [&set[..], &deployment[..], &["NetworkPolicy"]]);
    check_selectors(&manifests[0][0], &manifests[0][1], &manifests[0][2]);
    let (workload, budget) = (&manifests[1][0], &manifests[1][1]);
    let labels = &workload["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    for workload in [&manifests[0][1], workload] {
        check_workload(workload).await;
    }
    let policy = &manifests[2][0]["spec"];
    assert_eq!(&policy["podSelector"]["matchLabels"], labels);
    assert_eq!(policy["ingress"][0]["ports"][0]["port"], json!(7946));
}

#[tokio::test]
async fn the_compose_file_matches_the_programs() {
    let documents = documents("compose.yaml");
    let services = documents[0]["services"].as_object().unwrap();
    let image = format!("${{NODE_IMAGE:-clustering-node:{}}}", env!("CARGO_PKG_VERSION"));
    let mut names = Vec::new();
    for (name, service) in services.iter().filter(|(name, _)| name.starts_with("node-")) {
        let arguments: Vec<_> = service["command"].as_str().unwrap().split(' ').collect();
        check_options(&arguments, &["--namespace", "--name", "--uri"]).await;
        assert_eq!(after(&arguments, "--name"), name);
        assert_eq!(service["image"], json!(image));
        let endpoints = service["environment"]["ETCD_ENDPOINTS"].as_str().unwrap();
        for endpoint in endpoints.split(',') {
            assert!(services.contains_key(endpoint.split(':').next().unwrap()), "{endpoint}");
        }
        let dockerfile = service["build"]["dockerfile"].as_str().unwrap();
        assert!(root().join(dockerfile).is_file(), "{dockerfile}");
        names.push(name);
    }
    assert_eq!(names, ["node-1", "node-2", "node-3"]);
}

/// True if the file is part of the build context. The last pattern that matches decides.
fn is_in_context(file: &str) -> bool {
    let mut is_in = true;
    for pattern in example("Dockerfile.dockerignore").lines().filter(|line| !line.starts_with('#')) {
        let (pattern, keeps) = pattern.strip_prefix('!').map_or((pattern, false), |kept| (kept, true));
        let matches = pattern == "*" || file == pattern || file.starts_with(&format!("{pattern}/"));
        is_in = if matches { keeps } else { is_in };
    }
    is_in
}

/// Copies the build context of the image to a folder.
fn context() -> Folder {
    let git = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    assert!(git.status.success(), "{}", String::from_utf8_lossy(&git.stderr));
    let files = String::from_utf8(git.stdout).unwrap();
    let folder = Folder::new().unwrap();
    for file in files.lines().map(PathBuf::from).filter(|file| is_in_context(file.to_str().unwrap())) {
        let copy = folder.path().join(&file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        // Fails for a file that is deleted but not committed yet.
        let _ = fs::copy(root().join(&file), copy);
    }
    folder
}

/// Otherwise the build would fail, or use other versions than the tested ones.
#[test]
fn the_build_context_of_the_image_is_complete() {
    let folder = context();
    assert!(!folder.path().join("CHANGELOG.md").exists() && folder.path().join("scripts/protoc").exists());
    let cargo = |arguments: &str| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments.split(' ')).args(["--locked", "--offline"]).current_dir(folder.path());
        let output = cargo.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    cargo("tree --package clustering-etcd --package clustering-cli --edges normal,build");
    let metadata: Value = serde_json::from_slice(&cargo("metadata --format-version 1 --no-deps")).unwrap();
    check_build(&metadata);
}

/// Checks that all binaries and examples that the Dockerfile builds exist, are copied, and have locked dependencies.
fn check_build(metadata: &Value) {
    let dockerfile = example("Dockerfile").replace("\\\n", " ");
    let build = dockerfile.lines().find(|line| line.starts_with("RUN cargo build ")).unwrap();
    assert!(build.contains(" --locked "), "{build}");
    let packages = metadata["packages"].as_array().unwrap();
    let words: Vec<_> = build.split_whitespace().collect();
    let is_built = |package: &Value| {
        words.windows(2).any(|pair| pair[0] == "--package" && package["name"] == json!(pair[1]))
    };
    let has = |kind: &str, name: &str| {
        let built = packages.iter().filter(|package| is_built(package));
        let mut targets = built.flat_map(|package| package["targets"].as_array().unwrap());
        targets.any(|target| target["kind"] == json!([kind]) && target["name"] == json!(name))
    };
    for (flag, kind) in [("--bin", "bin"), ("--example", "example")] {
        for pair in words.windows(2).filter(|pair| pair[0] == flag) {
            assert!(has(kind, pair[1]), "no {kind} {}", pair[1]);
            let made = if kind == "bin" { pair[1].to_owned() } else { format!("examples/{}", pair[1]) };
            assert!(dockerfile.contains(&format!("/src/target/release/{made} ")), "{made} is not copied");
        }
    }
    let copied = dockerfile.lines().find(|line| line.starts_with("COPY --from=build")).unwrap();
    let made = copied.split_whitespace().filter(|word| word.starts_with("/src/")).count();
    assert_eq!(made, words.iter().filter(|word| ["--bin", "--example"].contains(word)).count());
}
