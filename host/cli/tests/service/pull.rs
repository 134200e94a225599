//! Components from a registry: a real one (go-containerregistry's), and one that lies.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::{Child, ChildStderr, Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{Service, component, directory, request};

struct Registry {
    process: Child,
    /// Held open: who writes to nobody ends.
    _log: BufReader<ChildStderr>,
    address: String,
}

impl Registry {
    fn start() -> Self {
        let mut process =
            Command::new("registry").args(["-port", "0"]).stderr(Stdio::piped()).spawn().expect("scripts/setup has installed a registry");
        let mut said = String::new();
        let mut log = BufReader::new(process.stderr.take().expect("piped"));
        log.read_line(&mut said).expect("it says its port");
        let port = said.trim().rsplit(' ').next().expect("a port");
        Self { process, _log: log, address: format!("localhost:{port}") }
    }

    /// The digest under which the registry has this.
    fn push_blob(&self, repository: &str, digest: &str, bytes: &[u8]) {
        let begun = request(&self.address, "POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[], b"");
        begun.expect_status(202);
        let location = begun.header("location").expect("where to");
        let path = location.split_once("/v2/").map_or(location.to_owned(), |(_, rest)| format!("/v2/{rest}"));
        request(&self.address, "PUT", &format!("{path}?digest=sha256:{digest}"), "", &[], bytes).expect_status(201);
    }

    /// The digest of the manifest.
    fn push_manifest(&self, repository: &str, manifest: &Value) -> String {
        let headers = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
        let path = format!("/v2/{repository}/manifests/v1");
        let pushed = request(&self.address, "PUT", &path, "", &headers, manifest.to_string().as_bytes());
        pushed.expect_status(201);
        pushed.header("docker-content-digest").expect("a digest").to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The digest of an empty JSON object, which is the usual empty configuration.
const EMPTY: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn manifest(layers: &[(&str, &str, usize)]) -> Value {
    let layers: Vec<Value> = layers
        .iter()
        .map(|(media_type, digest, size)| json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size }))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": format!("sha256:{EMPTY}"), "size": 2 },
        "layers": layers,
    })
}

#[test]
fn a_component_is_pulled_by_digest_from_a_registry_that_the_operator_has_named() {
    let (directory, registry) = (directory(), Registry::start());
    let service = Service::start_with(directory.path(), &["--registry", &format!("http://{}", registry.address)]);
    let bytes = component("count");
    let digest = service.push("there", "count");
    registry.push_blob("acme/count", EMPTY, b"{}");
    registry.push_blob("acme/count", &digest, &bytes);
    let good = registry.push_manifest("acme/count", &manifest(&[("application/wasm", &digest, bytes.len())]));
    let pull =
        |name: &str, reference: &str| service.post(&format!("/v1/components/{name}/pull?tag=v1"), &json!({ "reference": reference }));
    let place = format!("{}/acme/count", registry.address);

    let pulled = pull("pulled", &format!("{place}@{good}")).expect(201);
    assert_eq!((&pulled["digest"], &pulled["phase"], &pulled["tags"]), (&json!(digest), &json!("ready"), &json!(["v1"])));
    let text = crate::harness::job("x", "{ to: 9 }", "blackhole: {}").replace("count:v1", "pulled:v1");
    service.ask("POST", "/v1/jobs", &service.token, &[], text.as_bytes()).expect(201);
    service.wait_for_phase("x", "finished");

    let not_wasm =
        registry.push_manifest("acme/count", &manifest(&[("application/vnd.oci.image.layer.v1.tar+gzip", &digest, bytes.len())]));
    pull("other", &format!("{place}@{not_wasm}")).problem(400, "is no component: its layers are");
    let no_component = registry.push_manifest("acme/count", &manifest(&[("application/wasm", EMPTY, 2)]));
    pull("other", &format!("{place}@{no_component}")).problem(400, "is not a component");
    let huge = registry.push_manifest("acme/count", &manifest(&[("application/wasm", &digest, 33 << 20)]));
    pull("other", &format!("{place}@{huge}")).problem(400, "larger than 32.0 MiB");
    pull("other", &format!("{place}@sha256:{EMPTY}")).problem(404, "has no");
    pull("other", &format!("{place}:v1")).problem(400, "names no digest");
    pull("other", &format!("ghcr.io/acme/count@{good}")).problem(400, "does not pull from `ghcr.io`");
    let with_secret = json!({ "reference": format!("{place}@{good}"), "secret": "none" });
    service.post("/v1/components/other/pull", &with_secret).problem(404, "no secret `none`");
}

#[test]
fn a_registry_that_lies_is_not_believed() {
    let directory = directory();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let body = manifest(&[("application/wasm", EMPTY, 2)]).to_string();
    let lying = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the service asks");
        let mut head = [0; 4_096];
        let read = stream.read(&mut head).expect("a request");
        assert!(read > 0);
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).expect("it listens");
    });
    let service = Service::start_with(directory.path(), &["--registry", &format!("http://{address}")]);
    let reference = json!({ "reference": format!("{address}/acme/count@sha256:{EMPTY}") });
    service.post("/v1/components/x/pull", &reference).problem(400, "other bytes than its digest says");
    lying.join().expect("it was asked");
    assert_eq!(service.get("/v1/components").expect(200)["items"], json!([]));
}
