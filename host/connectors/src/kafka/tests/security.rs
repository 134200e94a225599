//! TLS, SASL and rights, against a broker that asks for them. Certificates are made anew by every test.

use std::{fs, path::Path, process::Command, sync::Arc};

use millstream_broker::Broker;
use millstream_engine::operator::{Fault, OperatorError};
use millstream_storage::Error;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Cluster,
    sink::{Job, request},
};
use crate::{
    kafka::{KafkaSink, KafkaSource, Machine, settings::SinkSettings, transaction::Transaction},
    testing::{clock, plan_sink, plan_source, read_all, schema},
};

const PASSWORD: &str = "a-secret-of-tests";
/// Users of the broker: one with every right that the documentation names, and one without each of them.
const USERS: [&str; 7] = ["all", "u0", "u1", "u2", "u3", "u4", "u5"];

/// A broker that encrypts, asks who is there, and looks at rights.
struct Secured {
    directory: TempDir,
    broker: Broker,
    cluster: Cluster,
}

fn openssl(directory: &Path, arguments: &str) {
    let done = Command::new("openssl").current_dir(directory).args(arguments.split(' ')).output().expect("openssl is installed");
    assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An authority, and what it has signed: a server at 127.0.0.1, and a client.
fn certificates(directory: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(directory, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=tests"));
    fs::write(directory.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1").expect("writable");
    for name in ["server", "client"] {
        openssl(directory, &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let signed = format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile names");
        openssl(directory, &signed);
    }
    let read = |name: &str| fs::read_to_string(directory.join(name)).expect("openssl wrote it");
    fs::write(directory.join("store.pem"), read("server.key") + &read("server.pem")).expect("writable");
}

impl Secured {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        certificates(directory.path());
        let file = |name: &str| directory.path().join(name).display().to_string();
        let plain: String = USERS.iter().map(|user| format!(" user_{user}=\"{PASSWORD}\"")).collect();
        let module = "org.apache.kafka.common.security";
        let mut settings = vec![
            "millstream.listeners=MUTUAL:SSL,SECURE:SASL_SSL,OPEN:SASL_PLAINTEXT".to_owned(),
            format!("millstream.scram={}", USERS.map(|user| format!("{user}:{PASSWORD}")).join(",")),
            "ssl.keystore.type=PEM".into(),
            format!("ssl.keystore.location={}", file("store.pem")),
            "ssl.truststore.type=PEM".into(),
            format!("ssl.truststore.location={}", file("ca.pem")),
            "listener.name.mutual.ssl.client.auth=required".into(),
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".into(),
            "super.users=User:ANONYMOUS;User:CN=client".into(),
        ];
        for name in ["secure", "open"] {
            settings.push(format!("listener.name.{name}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"));
            settings.push(format!("listener.name.{name}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required{plain};"));
            for scram in ["scram-sha-256", "scram-sha-512"] {
                settings.push(format!("listener.name.{name}.{scram}.sasl.jaas.config={module}.scram.ScramLoginModule required;"));
            }
        }
        let broker = Broker::start(&directory.path().join("broker"), &settings.iter().map(String::as_str).collect::<Vec<_>>());
        let cluster = Cluster { address: broker.address().to_owned(), unique: "secured".into(), shared: None };
        fs::write(directory.path().join("password"), PASSWORD).expect("writable");
        fs::write(directory.path().join("wrong"), "another").expect("writable");
        Self { directory, broker, cluster }
    }

    /// The settings of a connection: listener, certificates by their files, mechanism, user and the file of the password.
    fn way(&self, listener: &str, tls: Option<Value>, sasl: Option<(&str, &str, &str)>) -> Value {
        let address = if listener == "PLAIN" { self.broker.address().to_owned() } else { self.broker.listener(listener) };
        let mut way = json!({ "servers": address });
        if let Some(tls) = tls {
            way["tls"] = tls;
        }
        if let Some((mechanism, username, file)) = sasl {
            let password = format!("${{file:{}}}", self.directory.path().join(file).display());
            way["sasl"] = json!({ "mechanism": mechanism, "username": username, "password": password });
        }
        way
    }

    /// Reads what is in the topic now; how many rows there are.
    async fn read(&self, topic: &str, way: Value) -> Result<usize, OperatorError> {
        let mut settings = way;
        let more = json!({ "topics": topic, "format": "json", "end": "now" });
        settings.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let declared = Some(schema(&[("id", "Int64")]));
        let source = plan_source(&KafkaSource(Machine::Own), &settings, self.directory.path(), declared, clock()).expect("settings");
        read_all(&*source, 10).await.map(|everything| everything.positions().len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_works_with_the_right_secrets_and_says_what_is_wrong_with_others() {
    let secured = Secured::start();
    let topic = secured.cluster.create("in", 1, &[]).await;
    secured.cluster.produce(&topic, 0, &["{\"id\":1}"]);
    secured.broker.allow("all", ["topic", &topic, "read"]);
    let ca = || Some(json!({ "ca": "ca.pem" }));
    let pem = |name: &str| fs::read_to_string(secured.directory.path().join(name)).expect("openssl wrote it");
    let user = |mechanism| Some((mechanism, "all", "password"));
    let right = [
        secured.way("MUTUAL", Some(json!({ "ca": "ca.pem", "certificate": "client.pem", "key": "client.key" })), None),
        secured.way("MUTUAL", Some(json!({ "ca": pem("ca.pem"), "certificate": pem("client.pem"), "key": pem("client.key") })), None),
        secured.way("SECURE", ca(), user("PLAIN")),
        secured.way("SECURE", ca(), user("SCRAM-SHA-256")),
        secured.way("SECURE", ca(), user("SCRAM-SHA-512")),
        secured.way("OPEN", None, user("PLAIN")),
        secured.way("OPEN", None, user("SCRAM-SHA-256")),
        secured.way("OPEN", None, user("SCRAM-SHA-512")),
    ];
    for way in right {
        assert_eq!(secured.read(&topic, way.clone()).await.expect("the right secrets"), 1, "{way}");
    }
    let wrong = |mechanism| Some((mechanism, "all", "wrong"));
    let wrong = [
        (secured.way("OPEN", None, wrong("PLAIN")), "correct `sasl`"),
        (secured.way("OPEN", None, wrong("SCRAM-SHA-512")), "correct `sasl`"),
        (secured.way("SECURE", ca(), Some(("PLAIN", "nobody", "password"))), "correct `sasl`"),
        (secured.way("SECURE", Some(json!({})), user("PLAIN")), "correct `tls`"),
        (secured.way("MUTUAL", ca(), None), "`tls`"),
        (secured.way("PLAIN", ca(), None), "`tls`"),
        (secured.way("MUTUAL", None, None), "`tls`"),
        (secured.way("OPEN", None, None), "`sasl`"),
        (secured.way("SECURE", ca(), None), "`sasl`"),
    ];
    // Each takes as long as a cluster may take to answer.
    let read = wrong.into_iter().map(async |(way, says)| (secured.read(&topic, way.clone()).await, way, says));
    for (read, way, says) in futures::future::join_all(read).await {
        let error = read.expect_err("a wrong secret").to_string();
        assert!(error.contains(says) && error.contains(&topic), "{way}: {error}");
        assert!(!error.contains(PASSWORD) && !error.contains("another"), "{error}");
    }
}

/// A right, what is said where it is missing, and whether it is known at once that trying again is of no use.
#[derive(Clone, Debug)]
struct Right {
    rule: [String; 3],
    says: &'static str,
    is_final: bool,
}

/// What a user needs for a sink that writes exactly once (docs/kafka.md).
fn rights(out: &str, commits: &str) -> [Right; 6] {
    let right = |kind: &str, name: &str, operation: &str, says, is_final| Right {
        rule: [kind, name, operation].map(str::to_owned),
        says,
        is_final,
    };
    [
        right("topic", out, "write", "read or write", true),
        right("topic", commits, "create", "Create", true),
        right("topic", commits, "read", "read or write", true),
        // The library says of the record only that it was dropped, and of the transaction only a text.
        right("topic", commits, "write", "Topic authorization failed", false),
        // The same answer as for a topic that not every broker knows yet.
        right("topic", commits, "describe-configs", "DescribeConfigs", false),
        right("transactional-id", "millstream.*", "write", "transactional ids that begin with `millstream.`", true),
    ]
}

impl Secured {
    /// A checkpoint with rows, by this user.
    async fn commits(&self, user: &str, out: &str, commits: &str) -> Result<(), String> {
        let mut settings = self.way("OPEN", None, Some(("SCRAM-SHA-256", user, "password")));
        let more = json!({ "topic": out, "format": "json", "commit-topic": commits });
        settings.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let sink = plan_sink(&KafkaSink(Machine::Own), &settings, self.directory.path(), super::sink::columns(), false).expect("settings");
        let parsed: SinkSettings = serde_json::from_value(settings).expect("settings");
        let transaction = Transaction::new(&parsed, self.directory.path(), request()).expect("the password is there");
        let mut job = Job::unclaimed(&self.cluster, out, user, json!({}));
        job.transaction = Arc::new(transaction);
        let told = |error: OperatorError| format!("{:?}: {error}", error.fault);
        let decided = |error: Error| format!("{:?}: {}", error.kind(), chain(&error));
        job.claim().await.map_err(decided)?;
        let context = super::sink::context(0, Some(job.transaction.part()));
        let mut writer = sink.writer(context).await.map_err(told)?;
        writer.write(&super::sink::rows(0..10, out)).await.map_err(told)?;
        super::sink::checkpoint(&mut *writer, 1).await.map_err(told)?;
        job.commit(1).await.map_err(decided)
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough_and_each_that_is_missing_is_named() {
    let secured = Secured::start();
    a_topic_that_may_not_be_read_is_named(&secured).await;
    let tried = USERS.iter().enumerate().map(async |(number, user)| {
        let (out, commits) = (secured.cluster.create(&format!("out-{user}"), 1, &[]).await, format!("commits-{user}"));
        let rights = rights(&out, &commits);
        let missing = number.checked_sub(1);
        for (_, Right { rule: [kind, name, operation], .. }) in rights.iter().enumerate().filter(|(right, _)| Some(*right) != missing) {
            secured.broker.allow(user, [kind, name, operation]);
        }
        (missing.map(|missing| rights[missing].clone()), secured.commits(user, &out, &commits).await)
    });
    let tried = futures::future::join_all(tried).await;
    tried.iter().for_each(|(missing, done)| println!("without {missing:?}: {done:?}"));
    for (missing, done) in tried {
        match missing {
            None => done.expect("the documented rights are enough"),
            Some(right) => {
                let error = done.expect_err("a right is missing");
                let named = if right.rule[0] == "topic" { right.rule[1].as_str() } else { "millstream." };
                assert!(error.contains(right.says) && error.contains(named), "without {right:?}: {error}");
                let is_final = error.starts_with("Invalid") || error.starts_with("User");
                assert_eq!(is_final, right.is_final, "without {right:?}: {error}");
            }
        }
    }
}

async fn a_topic_that_may_not_be_read_is_named(secured: &Secured) {
    let topic = secured.cluster.create("in", 1, &[]).await;
    let refused = secured.read(&topic, secured.way("OPEN", None, Some(("PLAIN", "u0", "password")))).await.expect_err("no rights");
    assert_eq!(refused.fault, Fault::User);
    assert!(refused.to_string().contains(&topic) && refused.to_string().contains("allow this user"), "{refused}");
}
