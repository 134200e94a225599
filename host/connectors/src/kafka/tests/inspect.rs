//! Looks at topics.

use std::{ops::ControlFlow, path::Path};

use rdkafka::producer::{DefaultProducerContext, Producer as _, ThreadedProducer};

use super::{Cluster, LONG, send};
use crate::kafka::{
    inspect::{From, HeldUp, Look, Viewer},
    settings::Isolation,
};

/// The values that a look at a topic sees, and what held it up.
fn look(cluster: &Cluster, topic: &str, isolation: Isolation, mut on_pause: impl FnMut()) -> (Vec<String>, Vec<HeldUp>) {
    let viewer = Viewer::new(&cluster.connection(), Path::new("."), isolation).expect("a client");
    let look = Look { topic: topic.to_owned(), partitions: Vec::new(), from: From::Earliest, follow: false };
    let mut values = Vec::new();
    let held_up = viewer.look(
        &look,
        |record| {
            values.push(String::from_utf8_lossy(record.value.expect("a value")).into_owned());
            ControlFlow::Continue(())
        },
        || {
            on_pause();
            ControlFlow::Continue(())
        },
    );
    (values, held_up.expect("looks"))
}

/// One record that is committed, and one of a transaction that is open.
async fn with_open_transaction(cluster: &Cluster) -> (String, ThreadedProducer<DefaultProducerContext>) {
    let topic = cluster.create("look", 1, &[]).await;
    cluster.produce(&topic, 0, &["committed"]);
    let producer = cluster.producer(Some(&cluster.topic("transaction")));
    producer.init_transactions(LONG).expect("a coordinator");
    producer.begin_transaction().expect("begun");
    send(&producer, &topic, 0, "open");
    producer.flush(LONG).expect("delivered");
    (topic, producer)
}

/// Brokers acknowledge a commit before its records may be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_waits_for_a_transaction_that_is_ending() {
    let cluster = Cluster::get();
    let (topic, producer) = with_open_transaction(&cluster).await;
    let mut pauses = 0;
    let seen = look(&cluster, &topic, Isolation::ReadCommitted, || {
        if pauses == 0 {
            producer.commit_transaction(LONG).expect("committed");
        }
        pauses += 1;
    });
    assert_eq!(seen, (vec!["committed".to_owned(), "open".to_owned()], vec![]));
    assert!(pauses > 0, "it did not wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stays_open_is_named_and_holds_a_look_up_for_a_while_only() {
    let cluster = Cluster::get();
    let (topic, producer) = with_open_transaction(&cluster).await;
    let seen = look(&cluster, &topic, Isolation::ReadCommitted, || {});
    assert_eq!(seen, (vec!["committed".to_owned()], vec![HeldUp { partition: 0, offset: 1 }]));
    let seen = look(&cluster, &topic, Isolation::ReadUncommitted, || {});
    assert_eq!(seen, (vec!["committed".to_owned(), "open".to_owned()], vec![]));
    producer.abort_transaction(LONG).expect("aborted");
}
