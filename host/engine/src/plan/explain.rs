//! The plan for people: what runs where, what flows, what is remembered. Text whose lines are stable from run to run.

use std::fmt::Write;

use millstream_model::{StreamType, ids::SubtaskIndex, key::KeyGroup, types::type_text};

use super::durable;
use crate::{
    graph::{
        Chain, Checkpoints, Durability, Edge, EventTimeFrom, EventTimePlan, Exchange, JobPlan, Node, NodeIndex, NodeKind, NullKeys,
        OperatorNode, RowOrder, SourceNode, chains,
    },
    operator::OutputPort,
    rejected::RejectedPolicy,
    spec::{ByteSize, DurationMs},
};

/// The plan as text: chains in order, below each its nodes with what they read, keep and emit.
pub fn explain(plan: &JobPlan) -> String {
    let mut text = String::new();
    let batching = &plan.batching;
    line(&mut text, 0, format!("job {} of {}", plan.job, plan.tenant));
    let bytes = ByteSize::from_bytes(batching.bytes as u64);
    let edge_bytes = ByteSize::from_bytes(batching.edge_bytes as u64);
    let wait = humantime::format_duration(batching.wait);
    line(&mut text, 1, format!("batches: at most {} rows, {bytes}, {wait}; edges {edge_bytes}", batching.rows));
    line(&mut text, 1, format!("state memory: {}", ByteSize::from_bytes(plan.state_memory_bytes as u64)));
    line(&mut text, 1, durable_runs(&plan.durability));
    for (number, chain) in chains(plan).iter().enumerate() {
        text.push('\n');
        explain_chain(&mut text, plan, number, chain);
    }
    text
}

/// What a durable run promises.
fn durable_runs(durability: &Durability) -> String {
    let Checkpoints { interval, retained, .. } = &durability.checkpoints;
    let every = humantime::format_duration(*interval);
    format!("durable runs: {}, a checkpoint every {every}, the last {retained} kept", durable::text(durability.guarantee))
}

fn explain_chain(text: &mut String, plan: &JobPlan, number: usize, chain: &Chain) {
    let subtasks = if chain.parallelism == 1 { "1 subtask".to_owned() } else { format!("{} subtasks", chain.parallelism) };
    line(text, 0, format!("chain {}, {subtasks}", number + 1));
    if chain.nodes.iter().any(|&node| is_keyed(&plan.nodes[node])) && chain.parallelism > 1 {
        line(text, 1, format!("key groups: {}", key_groups(chain.parallelism)));
    }
    for &index in &chain.nodes {
        explain_node(text, plan, index, chain.head() == index);
    }
}

fn is_keyed(node: &Node) -> bool {
    matches!(&node.kind, NodeKind::Operator(operator) if operator.keys.is_some())
}

/// `0–2047, 2048–4095`; shortened for many subtasks.
fn key_groups(parallelism: u32) -> String {
    const SHOWN_MAX: u32 = 8;
    let ranges = (0..parallelism.min(SHOWN_MAX)).map(|subtask| KeyGroup::owned_by(SubtaskIndex(subtask), parallelism));
    let mut shown: Vec<String> = ranges.map(|range| format!("{}–{}", range.start, range.end.saturating_sub(1))).collect();
    if parallelism > SHOWN_MAX {
        shown.push("…".into());
    }
    shown.join(", ")
}

fn explain_node(text: &mut String, plan: &JobPlan, index: NodeIndex, is_head: bool) {
    let node = &plan.nodes[index];
    let what = match &node.kind {
        NodeKind::Source(_) => "source",
        NodeKind::Operator(_) => "operator",
        NodeKind::Sink(_) => "sink",
    };
    line(text, 1, format!("{what} {}", node.id));
    for edge in &node.inputs {
        explain_edge(text, plan, node, edge, is_head);
    }
    match &node.kind {
        NodeKind::Source(source) => explain_source(text, source),
        NodeKind::Operator(operator) => explain_operator(text, operator),
        NodeKind::Sink(sink) if sink.accepts_changes() => line(text, 2, "takes updates and deletions".into()),
        NodeKind::Sink(_) => {}
    }
    explain_outputs(text, plan, index);
}

fn explain_edge(text: &mut String, plan: &JobPlan, node: &Node, edge: &Edge, is_head: bool) {
    let port = match &node.kind {
        NodeKind::Operator(operator) if operator.inputs.len() > 1 => format!(" {}", edge.port),
        _ => String::new(),
    };
    let from = stream_name(&plan.nodes[edge.from], edge.output);
    let columns = crossing(plan, edge);
    let how = match &edge.exchange {
        Exchange::Forward if is_head => "forward, from subtask to subtask".to_owned(),
        Exchange::Forward => "in the same subtask".to_owned(),
        Exchange::Broadcast => "broadcast".to_owned(),
        Exchange::Rebalance => "rebalance".to_owned(),
        Exchange::Hash { keys, null_keys } => {
            let names: Vec<&str> = keys.iter().filter_map(|&key| columns.get(key)).map(String::as_str).collect();
            let nulls = match null_keys {
                NullKeys::Keep => "",
                NullKeys::Drop => ", null keys dropped",
                NullKeys::Reject => ", null keys rejected",
            };
            format!("hash by ({}){nulls}", names.join(", "))
        }
    };
    line(text, 2, format!("input{port}: {from}, {how}"));
    if edge.columns.is_some() {
        line(text, 3, format!("only {}", or_none(&columns)));
    }
}

/// The names of the columns that cross.
fn crossing(plan: &JobPlan, edge: &Edge) -> Vec<String> {
    let Some(stream) = plan.nodes[edge.from].output_type(edge.output) else { return Vec::new() };
    let name = |column: usize| stream.schema.fields().get(column).map_or_else(String::new, |field| field.name().clone());
    match &edge.columns {
        Some(columns) => columns.iter().map(|&column| name(column)).collect(),
        None => (0..stream.schema.fields().len()).map(name).collect(),
    }
}

fn explain_source(text: &mut String, source: &SourceNode) {
    let schema = source.source.schema();
    let generated: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    line(text, 2, format!("{}, reads {}", if source.source.is_bounded() { "bounded" } else { "unbounded" }, or_none(&generated)));
    if let Some(event_time) = &source.event_time {
        line(text, 2, event_time_text(event_time, &generated, source.source.is_bounded()));
    }
}

fn event_time_text(event_time: &EventTimePlan, columns: &[String], bounded: bool) -> String {
    let from = match &event_time.from {
        EventTimeFrom::Source => "by the source".to_owned(),
        EventTimeFrom::Column(column) => columns.get(*column).cloned().unwrap_or_default(),
        EventTimeFrom::Expression(expression) => expression.to_string(),
    };
    let mut text = format!("event time: {from}, out of order by at most {}", DurationMs::from_ms(event_time.bound_ms));
    match event_time.idle_timeout.filter(|_| !bounded) {
        Some(timeout) => text.push_str(&format!(", idle after {}", humantime::format_duration(timeout))),
        None => text.push_str(", never idle"),
    }
    if let Some(drift) = event_time.max_drift {
        text.push_str(&format!(", held when {} ahead", humantime::format_duration(drift)));
    }
    text
}

fn explain_operator(text: &mut String, operator: &OperatorNode) {
    for (port, input) in operator.inputs.iter().enumerate() {
        let which = if operator.inputs.len() > 1 { format!(" of input {port}") } else { String::new() };
        let name = |&column: &usize| input.schema.field(column).name().clone();
        if let Some(keys) = &operator.keys {
            let names: Vec<String> = keys[port].iter().map(name).collect();
            line(text, 2, format!("key{which}: {}", if names.is_empty() { "one for all rows".into() } else { names.join(", ") }));
        }
        if let Some(reads) = operator.plan.reads(port) {
            let names: Vec<String> = reads.iter().map(name).collect();
            line(text, 2, format!("reads{which}: {}", or_none(&names)));
        }
    }
    if operator.order == RowOrder::EventTime {
        line(text, 2, "order: event time".into());
    }
    operator.plan.explain().into_iter().for_each(|fact| line(text, 2, fact));
}

fn explain_outputs(text: &mut String, plan: &JobPlan, index: NodeIndex) {
    let node = &plan.nodes[index];
    match &node.kind {
        NodeKind::Source(source) => line(text, 2, format!("emits {}", stream_text(&source.output))),
        NodeKind::Operator(operator) => {
            for (port, (_, stream)) in operator.plan.outputs().iter().enumerate() {
                let name = stream_name(node, OutputPort::Port(port));
                let unread = if readers(plan, index, OutputPort::Port(port)).is_empty() { ", not read" } else { "" };
                line(text, 2, format!("emits {name}: {}{unread}", stream_text(stream)));
            }
        }
        NodeKind::Sink(_) => return,
    }
    let late = readers(plan, index, OutputPort::Late);
    if !late.is_empty() {
        line(text, 2, format!("late rows go to {}", late.join(", ")));
    }
    let rejected = match &node.rejected {
        RejectedPolicy::Fail => "fail the job".to_owned(),
        RejectedPolicy::Drop => "are dropped and counted".to_owned(),
        RejectedPolicy::Sink(_) => format!("go to {}", readers(plan, index, OutputPort::Rejected).join(", ")),
    };
    line(text, 2, format!("rejected rows {rejected}"));
}

fn readers(plan: &JobPlan, index: NodeIndex, output: OutputPort) -> Vec<String> {
    let reads = |node: &&Node| node.inputs.iter().any(|edge| edge.from == index && edge.output == output);
    plan.nodes.iter().filter(reads).map(|node| node.id.to_string()).collect()
}

fn stream_name(node: &Node, output: OutputPort) -> String {
    match (&node.kind, output) {
        (_, OutputPort::Rejected) => format!("{}.rejected", node.id),
        (_, OutputPort::Late) => format!("{}.late", node.id),
        (NodeKind::Operator(operator), OutputPort::Port(port)) if operator.plan.outputs().len() > 1 => {
            format!("{}.{}", node.id, operator.plan.outputs()[port].0)
        }
        (_, OutputPort::Port(_)) => node.id.to_string(),
    }
}

/// `(origin Utf8, dep_delay Float64?) with event times`.
fn stream_text(stream: &StreamType) -> String {
    let fields = stream.schema.fields().iter();
    let fields: Vec<String> = fields
        .map(|field| format!("{} {}{}", field.name(), type_text(field.data_type()), if field.is_nullable() { "?" } else { "" }))
        .collect();
    let time = if stream.event_times { " with event times" } else { "" };
    let changes = if stream.changes { ", updates and deletions" } else { "" };
    format!("({}){time}{changes}", fields.join(", "))
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "no columns".into() } else { names.join(", ") }
}

fn line(text: &mut String, depth: usize, content: String) {
    let _ = writeln!(text, "{:width$}{content}", "", width = depth * 2);
}
