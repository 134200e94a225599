//! `millstream topics list`.

use millstream_connectors::kafka::{
    inspect::{Extent, Partition, Topic, Viewer},
    settings::Isolation,
};
use serde_json::{Value, json};

use super::{cluster::Cluster, failed};
use crate::{
    report::{Exit, Failure},
    terminal,
};

/// Lists topics with their partitions.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream topics list --servers localhost:9092
  millstream topics list flights --offsets --servers localhost:9092
  millstream topics list --connection job.yaml --json | jq '.[].topic'")]
pub struct Arguments {
    /// Only these [default: all that users made].
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// Show every partition, with the offsets of its first record and behind its last one.
    #[arg(long)]
    offsets: bool,
    /// Show Kafka's own topics and those of commit records too.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

pub fn execute(arguments: &Arguments) -> Result<Exit, Failure> {
    let found = arguments.cluster.find()?;
    let viewer = Viewer::new(&found.connection, &found.base, Isolation::ReadUncommitted).map_err(|error| failed(&error))?;
    let topics = chosen(arguments, viewer.topics().map_err(|error| failed(&error))?)?;
    let topics: Vec<Listed> = topics.into_iter().map(|topic| listed(&viewer, topic, arguments.offsets)).collect::<Result<_, _>>()?;
    if arguments.json {
        terminal::print(&Value::from(topics.iter().map(to_json).collect::<Vec<_>>()).to_string());
    } else if topics.is_empty() {
        terminal::note("there is no topic");
    } else {
        terminal::print(&if arguments.offsets { by_partition(&topics) } else { by_topic(&topics) });
    }
    Ok(Exit::Done)
}

/// A topic, and what its partitions hold, if that was asked for.
struct Listed {
    topic: Topic,
    extents: Option<Vec<Extent>>,
}

fn listed(viewer: &Viewer, topic: Topic, with_offsets: bool) -> Result<Listed, Failure> {
    let extents = || topic.partitions.iter().map(|partition| viewer.extent(&topic.name, partition.id)).collect::<Result<Vec<_>, _>>();
    let extents = with_offsets.then(extents).transpose().map_err(|error| failed(&error))?;
    Ok(Listed { topic, extents })
}

fn chosen(arguments: &Arguments, topics: Vec<Topic>) -> Result<Vec<Topic>, Failure> {
    if let Some(missing) = arguments.topics.iter().find(|name| topics.iter().all(|topic| topic.name != **name)) {
        return Err(
            Failure::new(Exit::Invalid, format!("there is no topic `{missing}`")).fix("`millstream topics list` shows which there are")
        );
    }
    let is_wanted = |topic: &Topic| match arguments.topics.as_slice() {
        [] => arguments.all || !topic.is_internal(),
        names => names.contains(&topic.name),
    };
    Ok(topics.into_iter().filter(is_wanted).collect())
}

fn by_topic(topics: &[Listed]) -> String {
    let row = |Listed { topic, .. }: &Listed| {
        let replicas = topic.partitions.iter().map(|partition| partition.replicas).min().unwrap_or_default();
        let troubled = topic.partitions.iter().filter(|partition| trouble(partition).is_some()).count();
        let status = if troubled == 0 { "good".to_owned() } else { format!("{troubled} of {} not in sync", topic.partitions.len()) };
        [topic.name.clone(), topic.partitions.len().to_string(), replicas.to_string(), status]
    };
    terminal::table(["TOPIC", "PARTITIONS", "REPLICAS", "STATUS"], &topics.iter().map(row).collect::<Vec<_>>())
}

fn by_partition(topics: &[Listed]) -> String {
    let rows = topics.iter().flat_map(|Listed { topic, extents }| {
        topic.partitions.iter().zip(extents.iter().flatten()).map(|(partition, extent)| {
            let status = trouble(partition).unwrap_or("good").to_owned();
            let offsets = [extent.first, extent.end].map(|offset| offset.to_string());
            let [first, end] = offsets;
            [topic.name.clone(), partition.id.to_string(), first, end, extent.offsets().to_string(), status]
        })
    });
    terminal::table(["TOPIC", "PARTITION", "FIRST", "END", "OFFSETS", "STATUS"], &rows.collect::<Vec<_>>())
}

fn trouble(partition: &Partition) -> Option<&'static str> {
    match partition {
        Partition { leader, .. } if *leader < 0 => Some("no leader"),
        Partition { replicas, in_sync, .. } if in_sync < replicas => Some("not in sync"),
        _ => None,
    }
}

fn to_json(Listed { topic, extents }: &Listed) -> Value {
    let partitions = topic.partitions.iter().enumerate().map(|(index, partition)| {
        let mut shown = json!({
            "partition": partition.id,
            "leader": partition.leader,
            "replicas": partition.replicas,
            "in-sync": partition.in_sync,
        });
        if let Some(extent) = extents.as_ref().map(|extents| extents[index]) {
            shown["first"] = extent.first.into();
            shown["end"] = extent.end.into();
        }
        shown
    });
    json!({ "topic": topic.name, "partitions": partitions.collect::<Vec<_>>() })
}
