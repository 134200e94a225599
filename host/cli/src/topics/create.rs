//! `millstream topics create`.

use std::num::NonZeroU16;

use millstream_connectors::kafka::topics::{Admin, NewTopicSettings, Unknown, is_topic_name, partitions_of};
use millstream_engine::{
    clock::{Clock as _, SystemClock},
    operator::{Fault, OperatorError},
};
use serde_json::json;

use super::{cluster::Cluster, failed};
use crate::{
    machine,
    report::{Exit, Failure},
    terminal,
};

/// Looks for a topic that was made, before it is given up, and the wait between two.
const LOOKS_MAX: u32 = 200;
const LOOK_MS: i64 = 50;

/// Makes a topic; one that is there with as many partitions stays as it is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream topics create flights --partitions 3 --servers localhost:9092
  millstream topics create hours --config cleanup.policy=compact --connection job.yaml")]
pub struct Arguments {
    /// Its name.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// How many partitions it gets.
    #[arg(long, short, value_name = "N", default_value = "1")]
    partitions: NonZeroU16,
    /// Copies of each [default: what the brokers say].
    #[arg(long, value_name = "N")]
    replication: Option<NonZeroU16>,
    /// A setting of the topic, as cleanup.policy=compact or retention.ms=86400000.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    config: Vec<(String, String)>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

pub fn execute(arguments: &Arguments) -> Result<Exit, Failure> {
    let Arguments { topic, partitions, .. } = arguments;
    if !is_topic_name(topic) {
        let fix = "a name has letters, digits, `.`, `_` and `-`, at most 249";
        return Err(Failure::new(Exit::Invalid, format!("`{topic}` is no name of a topic")).fix(fix));
    }
    let found = arguments.cluster.find()?;
    let admin = Admin::new(&found.connection, &found.base).map_err(|error| failed(&error))?;
    let config: Vec<(&str, &str)> = arguments.config.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let replication = arguments.replication.map(|replication| i32::from(replication.get()));
    let new = NewTopicSettings { name: topic, partitions: i32::from(partitions.get()), replication, config: &config };
    let made = machine::block_on(async { made(&admin, &new).await.map_err(|error| failed(&error)) })?;
    if made != usize::from(partitions.get()) {
        let message = format!("the topic `{topic}` is there already, and has {made} partitions, not {partitions}");
        return Err(Failure::new(Exit::Invalid, message));
    }
    terminal::note(&match arguments.json {
        true => json!({ "topic": topic, "partitions": made }).to_string(),
        false => format!("the topic `{topic}` is there, with {made} partitions"),
    });
    Ok(Exit::Done)
}

/// Makes the topic and waits until it can be used: its partitions. A topic that was just made is not known to every broker at once.
async fn made(admin: &Admin, new: &NewTopicSettings<'_>) -> Result<usize, OperatorError> {
    admin.create(new).await?;
    let mut looks = 0;
    loop {
        match partitions_of(admin.client(), new.name, Unknown::IsMistake) {
            Ok(partitions) => return Ok(partitions.len()),
            Err(error) if error.fault == Fault::User && looks < LOOKS_MAX => looks += 1,
            Err(error) => return Err(error),
        }
        SystemClock.sleep(LOOK_MS).await;
    }
}

/// `NAME=VALUE`.
fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, as cleanup.policy=compact".to_owned()),
    }
}
