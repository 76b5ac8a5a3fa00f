//! The files in `examples/` for containers, compared with each other and with what the programs say of themselves. No
//! image is built here, and no Kubernetes is asked.

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
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn example(name: &str) -> String {
    fs::read_to_string(root().join("clustering-etcd/examples").join(name)).unwrap()
}

/// The documents of a YAML file as JSON, with merge keys (`<<`) merged.
fn documents(name: &str) -> Vec<Value> {
    Yaml::load_from_str(&example(name)).unwrap().iter().map(plain).collect()
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

/// What a program says of itself.
async fn help(program: &[&str]) -> String {
    match program {
        ["clustering", rest @ ..] => {
            let mut command = command();
            command.args(rest).arg("--help");
            run(command).await.ended(0).to_owned()
        }
        // It need not be built for this test.
        ["node"] => example("node/arguments.rs"),
        other => panic!("the image has no {other:?}"),
    }
}

/// All flags of a command line are among those of its program, and it has these.
async fn knows(arguments: &[&str], wanted: &[&str]) {
    let own: Vec<_> = arguments.iter().take_while(|argument| **argument != "--").copied().collect();
    let program: Vec<_> = own.iter().take_while(|argument| !argument.starts_with('-')).copied().collect();
    let help = help(&program).await;
    for flag in own.iter().filter(|argument| argument.starts_with("--")) {
        let is_known = help.split(|c: char| c.is_whitespace() || c == ',').any(|word| word == *flag);
        assert!(is_known, "{flag} is not in the help of {program:?}: {help}");
    }
    for flag in wanted {
        assert!(own.contains(flag), "no {flag} in {arguments:?}");
    }
}

/// What follows a flag.
fn after<'a>(arguments: &[&'a str], flag: &str) -> &'a str {
    arguments[arguments.iter().position(|argument| *argument == flag).unwrap() + 1]
}

fn port(address: &str) -> i64 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// The arguments that a comment proposes.
fn commented(text: &str) -> Vec<String> {
    let text: String = text.lines().filter_map(|line| line.strip_prefix('#')).collect::<Vec<_>>().join(" ");
    let list = text.split("args: [").nth(1).unwrap().split("--port").next().unwrap();
    list.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect()
}

#[tokio::test]
async fn the_manifest_says_what_the_programs_can() {
    let documents = documents("kubernetes/node.yaml");
    let kinds: Vec<_> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Service", "StatefulSet", "PodDisruptionBudget"]);
    let versions: Vec<_> = documents.iter().map(|document| &document["apiVersion"]).collect();
    assert_eq!(versions, [&json!("v1"), &json!("apps/v1"), &json!("policy/v1")]);
    let [service, set, budget] = &documents[..] else { panic!() };
    let template = &set["spec"]["template"];
    let pod = &template["spec"];
    let [container] = &pod["containers"].as_array().unwrap()[..] else { panic!("one container") };

    // Who selects whom.
    let labels = &template["metadata"]["labels"];
    for selector in [&service["spec"]["selector"], &set["spec"]["selector"]["matchLabels"]] {
        assert_eq!(selector, labels);
    }
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(set["spec"]["serviceName"], service["metadata"]["name"]);

    // Each service its own namespace, by flags and variables that exist.
    let arguments = texts(&container["args"]);
    knows(&arguments, &["--namespace", "--name", "--uri", "--probes"]).await;
    let variables = container["env"].as_array().unwrap();
    let variables: Vec<_> = variables.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    let service_name = service["metadata"]["name"].as_str().unwrap();
    assert_eq!(after(&arguments, "--namespace"), format!("$(POD_NAMESPACE)/{service_name}"));
    for used in arguments.iter().flat_map(|argument| argument.split("$(").skip(1)) {
        let name = used.split(')').next().unwrap();
        assert!(variables.contains(&name), "$({name}) is not set");
    }
    for name in variables.iter().filter(|name| !name.starts_with("POD_")) {
        let help = help(&["clustering", "run"]).await;
        let mut words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        assert!(words.any(|word| word == *name), "nobody reads {name}");
    }

    // Ports at which somebody listens, and probes there.
    let listens = port(after(&arguments, "--probes"));
    let ports = container["ports"].as_array().unwrap();
    let ports: BTreeMap<_, _> = ports
        .iter()
        .map(|port| (port["name"].as_str().unwrap(), port["containerPort"].as_i64().unwrap()))
        .collect();
    assert!(ports.values().all(|port| *port == listens), "{ports:?}, and it listens at {listens}");
    for served in service["spec"]["ports"].as_array().unwrap() {
        assert_eq!(served["port"].as_i64(), Some(listens));
        assert!(ports.contains_key(served["name"].as_str().unwrap()));
    }
    assert_eq!(port(after(&arguments, "--uri")), listens);
    assert_eq!(template["metadata"]["annotations"]["prometheus.io/port"], json!(listens.to_string()));
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["path"], json!(path));
        assert!(ports.contains_key(get["port"].as_str().unwrap()), "{get}");
        assert!(help(&["clustering", "run"]).await.contains(path));
    }

    // It runs where only what is not root may, and its image is the one that the Dockerfile makes of this version.
    assert_eq!(pod["securityContext"]["runAsNonRoot"], json!(true));
    let dockerfile = example("Dockerfile");
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    let image = format!("clustering-node:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container["image"], json!(image));
    assert!(dockerfile.contains(&format!("-t {image} ")));

    // The same for the proposal that stands above it.
    let proposed = commented(&example("kubernetes/node.yaml"));
    let proposed: Vec<_> = proposed.iter().map(String::as_str).collect();
    knows(&proposed, &["--namespace", "--name", "--uri", "--listen"]).await;
    assert_eq!(port(after(&proposed, "--listen")), listens);
}

#[tokio::test]
async fn the_composed_cluster_says_what_the_programs_can() {
    let documents = documents("compose.yaml");
    let services = documents[0]["services"].as_object().unwrap();
    let image = format!("${{NODE_IMAGE:-clustering-node:{}}}", env!("CARGO_PKG_VERSION"));
    let mut names = Vec::new();
    for (name, service) in services.iter().filter(|(name, _)| name.starts_with("node-")) {
        let arguments: Vec<_> = service["command"].as_str().unwrap().split(' ').collect();
        knows(&arguments, &["--namespace", "--name", "--uri"]).await;
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

/// True if the file is part of the image's context: the last pattern that fits counts.
fn is_in_context(file: &str) -> bool {
    let mut is_in = true;
    for pattern in example("Dockerfile.dockerignore").lines().filter(|line| !line.starts_with('#')) {
        let (pattern, keeps) = pattern.strip_prefix('!').map_or((pattern, false), |kept| (kept, true));
        let fits = pattern == "*" || file == pattern || file.starts_with(&format!("{pattern}/"));
        is_in = if fits { keeps } else { is_in };
    }
    is_in
}

/// Else the build fails, or takes other versions than those that are tested.
#[test]
fn the_image_is_built_of_what_is_in_its_context() {
    let git = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    assert!(git.status.success(), "{}", String::from_utf8_lossy(&git.stderr));
    let files = String::from_utf8(git.stdout).unwrap();
    let folder = Folder::new().unwrap();
    for file in files.lines().map(PathBuf::from).filter(|file| is_in_context(file.to_str().unwrap())) {
        let copy = folder.path().join(&file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        // One that is deleted and not committed yet.
        let _ = fs::copy(root().join(&file), copy);
    }
    assert!(!folder.path().join("CHANGELOG.md").exists() && folder.path().join("scripts/protoc").exists());
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments).args(["--locked", "--offline"]).current_dir(folder.path());
        let output = cargo.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    cargo(&["tree", "--package", "clustering-etcd", "--features", "cli", "--edges", "normal,build"]);
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps"]);

    // What is built is there, is copied, and is locked.
    let dockerfile = example("Dockerfile").replace("\\\n", " ");
    let build = dockerfile.lines().find(|line| line.starts_with("RUN cargo build ")).unwrap();
    assert!(build.contains(" --locked "), "{build}");
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == json!("clustering-etcd")).unwrap();
    let has = |kind: &str, name: &str| {
        let targets = package["targets"].as_array().unwrap();
        targets.iter().any(|target| target["kind"] == json!([kind]) && target["name"] == json!(name))
    };
    let words: Vec<_> = build.split_whitespace().collect();
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
