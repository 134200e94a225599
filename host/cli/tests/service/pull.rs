//! Components from a registry: a real one (go-containerregistry's), one that lies, and the real one behind a door: it knows no users itself, so who comes in is
//! decided by a proxy of these tests, by the distribution specification: with a password (`Basic`), or with a token that a password gets (`Bearer`).

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex},
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

/// How a door finds out who asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asks {
    /// For nothing.
    Nothing,
    /// For the password.
    Basic,
    /// For a token, which it gives to who has the password.
    Bearer,
}

/// `acme:planted-4c1d`.
const CREDENTIALS: &str = "Basic YWNtZTpwbGFudGVkLTRjMWQ=";
const TOKEN: &str = "token-of-the-test";

/// What stands before a registry.
struct Door {
    address: String,
    /// The heads of the requests that came.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Door {
    /// In front of `registry`; layers are to be got from `storage`, if that is another place.
    fn before(registry: &str, asks: Asks, storage: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (registry, storage, own) = (registry.to_owned(), storage.map(str::to_owned), address.clone());
        let kept = heads.clone();
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("somebody asks");
                let head = head_of(&stream);
                kept.lock().expect("no holder panics").push(head.clone());
                // Who asked may have gone.
                drop(answer(&mut stream, &head, asks, &own, &registry, storage.as_deref()));
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no holder panics").clone()
    }
}

fn head_of(stream: &TcpStream) -> String {
    let lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    lines.map(|line| line + "\n").collect()
}

fn answer(stream: &mut TcpStream, head: &str, asks: Asks, own: &str, registry: &str, storage: Option<&str>) -> std::io::Result<()> {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let shows = |wanted: &str| {
        head.lines()
            .any(|line| line.split_once(": ").is_some_and(|(name, value)| name.eq_ignore_ascii_case("authorization") && value == wanted))
    };
    let refuse = |stream: &mut TcpStream, challenge: &str| {
        write!(stream, "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\nwww-authenticate: {challenge}\r\ncontent-length: 0\r\n\r\n")
    };
    if let Some(query) = path.strip_prefix("/token?") {
        let is_asked_right = query.contains("service=registry.test") && query.contains("scope=repository%3Aacme%2Fcount%3Apull");
        if !is_asked_right || !shows(CREDENTIALS) {
            return refuse(stream, "Basic realm=\"tokens\"");
        }
        let body = json!({ "token": TOKEN, "expires_in": 300 }).to_string();
        return write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    }
    match asks {
        Asks::Basic if !shows(CREDENTIALS) => return refuse(stream, "Basic realm=\"registry\""),
        Asks::Bearer if !shows(&format!("Bearer {TOKEN}")) => {
            let scope = "repository:acme/count:pull";
            return refuse(stream, &format!("Bearer realm=\"http://{own}/token\",service=\"registry.test\",scope=\"{scope}\""));
        }
        Asks::Nothing | Asks::Basic | Asks::Bearer => {}
    }
    if let (Some(storage), true) = (storage, path.contains("/blobs/")) {
        return write!(
            stream,
            "HTTP/1.1 307 Temporary Redirect\r\nconnection: close\r\nlocation: http://{storage}{path}\r\ncontent-length: 0\r\n\r\n"
        );
    }
    let mut behind = TcpStream::connect(registry)?;
    let accept = head.lines().find(|line| line.to_ascii_lowercase().starts_with("accept: ")).unwrap_or("accept: */*");
    write!(behind, "GET {path} HTTP/1.1\r\nhost: registry\r\nconnection: close\r\n{accept}\r\n\r\n")?;
    std::io::copy(&mut behind, stream).map(drop)
}

/// With a password, with a token, and where layers lie elsewhere: nobody gets to know the password but who asks for it.
#[test]
fn a_registry_that_wants_to_know_who_asks_is_told_and_nobody_else() {
    let (directory, registry) = (directory(), Registry::start());
    let storage = Door::before(&registry.address, Asks::Nothing, None);
    let doors = [
        ("basic", Door::before(&registry.address, Asks::Basic, None)),
        ("bearer", Door::before(&registry.address, Asks::Bearer, None)),
        ("elsewhere", Door::before(&registry.address, Asks::Bearer, Some(&storage.address))),
    ];
    let named: Vec<String> = doors.iter().flat_map(|(_, door)| ["--registry".to_owned(), format!("http://{}", door.address)]).collect();
    let service = Service::start_with(directory.path(), &named.iter().map(String::as_str).collect::<Vec<_>>());
    let bytes = component("count");
    let digest = service.push("there", "count");
    registry.push_blob("acme/count", EMPTY, b"{}");
    registry.push_blob("acme/count", &digest, &bytes);
    let good = registry.push_manifest("acme/count", &manifest(&[("application/wasm", &digest, bytes.len())]));
    for (secret, value) in [("right", "acme:planted-4c1d"), ("wrong", "acme:planted-9999")] {
        service.put(&format!("/v1/secrets/{secret}"), &json!({ "value": value })).expect(200);
    }
    for (name, door) in &doors {
        let reference = format!("{}/acme/count@{good}", door.address);
        let pull = |more: Value| {
            let mut body = json!({ "reference": reference });
            body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            service.post(&format!("/v1/components/{name}/pull?tag=v1"), &body)
        };
        pull(json!({})).problem(400, "does not let the service in");
        let refused = pull(json!({ "secret": "wrong" }));
        assert!(!refused.body.contains("planted"), "{}", refused.body);
        refused.problem(400, "does not let the service in");
        assert_eq!(pull(json!({ "secret": "right" })).expect(201)["digest"], json!(digest), "{name}");
        let shown = door
            .heads()
            .iter()
            .filter(|head| head.contains(CREDENTIALS))
            .map(|head| head.split(' ').nth(1).unwrap().to_owned())
            .collect::<Vec<_>>();
        match *name {
            "basic" => assert!(shown.iter().all(|path| path.starts_with("/v2/acme/count/")), "{shown:?}"),
            _ => assert!(!shown.is_empty() && shown.iter().all(|path| path.starts_with("/token?")), "{shown:?}"),
        }
    }
    let heads = storage.heads();
    assert!(!heads.is_empty() && heads.iter().all(|head| !head.to_ascii_lowercase().contains("authorization")), "{heads:?}");
}
