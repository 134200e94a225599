//! Names become edges: who reads whom, on which port, and in which order nodes can be planned. No types yet.

use std::collections::HashMap;

use serde_json::Value;

use super::typed::Planner;
use crate::{
    operators::{AnyOperatorSpec, Ports, registry},
    rejected::RejectedPolicy,
    spec::{Entry, Inputs, JobSpec, OperatorEntry, SinkEntry, SourceEntry, child, suggest},
};

/// The graph by name. Nodes are in topological order: sources, operators, sinks.
pub(super) struct Draft<'a> {
    pub(super) nodes: Vec<DraftNode<'a>>,
}

pub(super) struct DraftNode<'a> {
    pub(super) id: &'a str,
    /// Its entry in the job file.
    pub(super) pointer: &'a str,
    pub(super) kind: DraftKind<'a>,
    /// In port order. None: an input could not be resolved; it is reported.
    pub(super) inputs: Option<Vec<DraftEdge>>,
    pub(super) rejected: RejectedPolicy,
}

pub(super) enum DraftKind<'a> {
    Source(&'a Entry<SourceEntry>),
    Operator {
        entry: &'a Entry<OperatorEntry>,
        /// Its settings and ports; none: they could not be read, which is reported.
        spec: Option<(Box<dyn AnyOperatorSpec>, Ports)>,
    },
    Sink(&'a Entry<SinkEntry>),
    /// Its entry could not be read, which is reported.
    Broken {
        is_sink: bool,
    },
}

/// A stream into a port.
#[derive(Clone, Debug)]
pub(super) struct DraftEdge {
    pub(super) from: usize,
    pub(super) output: OutputName,
    pub(super) port: usize,
    /// Where the job file asks for it.
    pub(super) pointer: String,
}

/// Which output of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OutputName {
    /// The only or first one.
    First,
    Named(String),
    Rejected,
    Late,
}

impl DraftNode<'_> {
    pub(super) fn is_sink(&self) -> bool {
        matches!(self.kind, DraftKind::Sink(_) | DraftKind::Broken { is_sink: true })
    }
}

/// A stream as the job file names it, and where.
#[derive(Clone, Debug)]
struct StreamName {
    text: String,
    pointer: String,
    port: usize,
}

pub(super) async fn draft<'a>(planner: &mut Planner<'_, '_>, spec: &'a JobSpec) -> Draft<'a> {
    let mut nodes: Vec<DraftNode<'a>> = spec.sources.iter().map(source).collect();
    let mut names: Vec<Option<Vec<StreamName>>> = nodes.iter().map(|_| Some(Vec::new())).collect();
    for entry in &spec.operators {
        let read = operator_spec(planner, entry).await;
        names.push(match &read {
            Some((_, ports)) => operator_streams(planner, entry, ports),
            None => streams_of_unknown_ports(planner, entry),
        });
        nodes.push(operator(entry, read));
    }
    for entry in &spec.sinks {
        names.push(sink_streams(planner, entry));
        nodes.push(sink(entry));
    }
    for entry in &spec.broken {
        let kind = DraftKind::Broken { is_sink: entry.is_sink };
        names.push(None);
        nodes.push(DraftNode { id: &entry.id, pointer: &entry.pointer, kind, inputs: None, rejected: RejectedPolicy::Fail });
    }
    resolve(planner, &mut nodes, names);
    wire_rejected(planner, &mut nodes);
    Draft { nodes: in_order(planner, nodes) }
}

fn source(entry: &Entry<SourceEntry>) -> DraftNode<'_> {
    let rejected = entry.common.rejected.clone().unwrap_or_default();
    DraftNode { id: &entry.id, pointer: &entry.pointer, kind: DraftKind::Source(entry), inputs: Some(Vec::new()), rejected }
}

fn operator(entry: &Entry<OperatorEntry>, spec: Option<(Box<dyn AnyOperatorSpec>, Ports)>) -> DraftNode<'_> {
    let rejected = entry.common.rejected.clone().unwrap_or_default();
    DraftNode { id: &entry.id, pointer: &entry.pointer, kind: DraftKind::Operator { entry, spec }, inputs: None, rejected }
}

fn sink(entry: &Entry<SinkEntry>) -> DraftNode<'_> {
    DraftNode { id: &entry.id, pointer: &entry.pointer, kind: DraftKind::Sink(entry), inputs: None, rejected: RejectedPolicy::Fail }
}

async fn operator_spec(planner: &mut Planner<'_, '_>, entry: &Entry<OperatorEntry>) -> Option<(Box<dyn AnyOperatorSpec>, Ports)> {
    let kind = registry().iter().find(|kind| kind.key == entry.kind)?;
    let spec = match (kind.parse)(entry.settings.clone()) {
        Ok(spec) => spec,
        Err(problem) => {
            planner.report_operator(entry, &[problem]);
            return None;
        }
    };
    match spec.ports(planner.environment).await {
        Ok(ports) => Some((spec, ports)),
        Err(problems) => {
            planner.report_operator(entry, &problems);
            None
        }
    }
}

/// The streams of each port, as the entry names them.
fn operator_streams(planner: &mut Planner<'_, '_>, entry: &Entry<OperatorEntry>, ports: &Ports) -> Option<Vec<StreamName>> {
    let at_input = child(&entry.pointer, "input");
    let at_inputs = child(&entry.pointer, "inputs");
    let help = ports_help(ports);
    match (&entry.common.input, &entry.common.inputs) {
        (Some(_), Some(_)) => {
            planner.report.key(&at_inputs, "`input` and `inputs` stand side by side", Some(help));
            None
        }
        (None, None) => {
            planner.report.key(&entry.pointer, "the operator has no input", Some(help));
            None
        }
        (Some(input), None) => match ports {
            Ports::Named(names) if names.len() != 1 => {
                planner.report.key(&at_input, format!("`{}` has {} inputs", entry.id, names.len()), Some(help));
                None
            }
            _ => Some(vec![StreamName { text: input.clone(), pointer: at_input, port: 0 }]),
        },
        (None, Some(Inputs::List(list))) => streams_in_order(planner, &at_inputs, list, ports),
        (None, Some(Inputs::ByPort(map))) => streams_by_port(planner, &at_inputs, map, ports),
    }
}

/// The streams that an entry names whose ports are not known, as a component is not built: which port each would go to is not checked.
fn streams_of_unknown_ports(planner: &mut Planner<'_, '_>, entry: &Entry<OperatorEntry>) -> Option<Vec<StreamName>> {
    let any = match (&entry.common.input, &entry.common.inputs) {
        (None, Some(Inputs::List(list))) => Ports::Named(list.clone()),
        (None, Some(Inputs::ByPort(map))) => Ports::Named(map.keys().cloned().collect()),
        (Some(_), _) | (None, None) => Ports::one(),
    };
    operator_streams(planner, entry, &any)
}

fn ports_help(ports: &Ports) -> String {
    match ports {
        Ports::Union => "write `inputs: [first, second]`".into(),
        Ports::Named(names) if names.len() == 1 => "write `input: <stream>`".into(),
        Ports::Named(names) => {
            format!("write `inputs: {{ {} }}`", names.iter().map(|name| format!("{name}: <stream>")).collect::<Vec<_>>().join(", "))
        }
    }
}

fn streams_in_order(planner: &mut Planner<'_, '_>, pointer: &str, list: &[String], ports: &Ports) -> Option<Vec<StreamName>> {
    let expected = match ports {
        Ports::Union => list.len().max(1),
        Ports::Named(names) => names.len(),
    };
    if list.len() != expected {
        let help = if expected == 1 { "several streams of one type become one by the operator `union`".into() } else { ports_help(ports) };
        planner.report.value(
            pointer,
            format!("expected {expected} {}, found {}", if expected == 1 { "stream" } else { "streams" }, list.len()),
            Some(help),
        );
        return None;
    }
    let port = |index| if *ports == Ports::Union { 0 } else { index };
    let streams = list.iter().enumerate();
    Some(
        streams
            .map(|(index, text)| StreamName { text: text.clone(), pointer: child(pointer, &index.to_string()), port: port(index) })
            .collect(),
    )
}

fn streams_by_port(
    planner: &mut Planner<'_, '_>,
    pointer: &str,
    map: &serde_json::Map<String, Value>,
    ports: &Ports,
) -> Option<Vec<StreamName>> {
    let Ports::Named(names) = ports else {
        planner.report.value(pointer, "the inputs have no names", Some(ports_help(ports)));
        return None;
    };
    let mut streams = Vec::new();
    let mut complete = true;
    for (name, stream) in map {
        let at = child(pointer, name);
        match (names.iter().position(|known| known == name), stream.as_str()) {
            (Some(port), Some(text)) => streams.push(StreamName { text: text.into(), pointer: at, port }),
            (None, _) => {
                let help = suggest::help("inputs", name, names.iter().map(String::as_str));
                planner.report.key(&at, format!("unknown input `{name}`"), Some(help));
                complete = false;
            }
            (_, None) => {
                planner.report.value(&at, "the name of a stream is a text", None);
                complete = false;
            }
        }
    }
    for name in names.iter().filter(|name| !map.contains_key(*name)) {
        planner.report.key(pointer, format!("the input `{name}` is missing"), Some(ports_help(ports)));
        complete = false;
    }
    streams.sort_by_key(|stream| stream.port);
    complete.then_some(streams)
}

fn sink_streams(planner: &mut Planner<'_, '_>, entry: &Entry<SinkEntry>) -> Option<Vec<StreamName>> {
    let at_input = child(&entry.pointer, "input");
    let at_inputs = child(&entry.pointer, "inputs");
    match (&entry.common.input, &entry.common.inputs) {
        (Some(_), Some(_)) => {
            planner.report.key(&at_inputs, "`input` and `inputs` stand side by side", None);
            None
        }
        (Some(input), None) => Some(vec![StreamName { text: input.clone(), pointer: at_input, port: 0 }]),
        (None, Some(list)) => {
            let named = list.iter().enumerate();
            Some(
                named
                    .map(|(index, text)| StreamName { text: text.clone(), pointer: child(&at_inputs, &index.to_string()), port: 0 })
                    .collect(),
            )
        }
        (None, None) => Some(Vec::new()),
    }
}

/// Turns names of streams into numbers of nodes.
fn resolve(planner: &mut Planner<'_, '_>, nodes: &mut [DraftNode<'_>], names: Vec<Option<Vec<StreamName>>>) {
    let numbers: HashMap<&str, usize> = nodes.iter().enumerate().map(|(number, node)| (node.id, number)).collect();
    let resolved: Vec<Option<Vec<DraftEdge>>> = names
        .into_iter()
        .enumerate()
        .map(|(reader, names)| {
            let edges: Vec<Option<DraftEdge>> = names?.into_iter().map(|name| edge(planner, (nodes, reader), &numbers, name)).collect();
            edges.into_iter().collect()
        })
        .collect();
    for (node, inputs) in nodes.iter_mut().zip(resolved) {
        node.inputs = inputs;
    }
}

/// The edge that brings the stream of a name to a node, given with the number of that node.
fn edge(
    planner: &mut Planner<'_, '_>,
    (nodes, reader): (&[DraftNode<'_>], usize),
    numbers: &HashMap<&str, usize>,
    name: StreamName,
) -> Option<DraftEdge> {
    let StreamName { text, pointer, port } = name;
    let (id, output) = match text.split_once('.') {
        None => (text.as_str(), OutputName::First),
        Some((id, "rejected")) => (id, OutputName::Rejected),
        Some((id, "late")) => (id, OutputName::Late),
        Some((id, output)) => (id, OutputName::Named(output.into())),
    };
    let Some(&from) = numbers.get(id) else {
        // Nobody meant to read from themselves.
        let streams = nodes.iter().enumerate().filter(|(number, node)| *number != reader && !node.is_sink()).map(|(_, node)| node.id);
        planner.report.value(&pointer, format!("unknown stream `{text}`"), Some(suggest::help("streams", id, streams)));
        return None;
    };
    if nodes[from].is_sink() {
        planner.report.value(&pointer, format!("`{id}` is a sink, nothing flows out of it"), None);
        return None;
    }
    Some(DraftEdge { from, output, port, pointer })
}

/// Rejected rows flow to the sink that is named under `rejected:`, or to whoever reads `<id>.rejected`.
fn wire_rejected(planner: &mut Planner<'_, '_>, nodes: &mut [DraftNode<'_>]) {
    for from in 0..nodes.len() {
        let (given, pointer) = match &nodes[from].kind {
            DraftKind::Source(entry) => (entry.common.rejected.clone(), child(&entry.pointer, "rejected")),
            DraftKind::Operator { entry, .. } => (entry.common.rejected.clone(), child(&entry.pointer, "rejected")),
            DraftKind::Sink(_) | DraftKind::Broken { .. } => continue,
        };
        let reader = reader_of_rejected(nodes, from);
        match (given, reader) {
            (Some(RejectedPolicy::Sink(sink)), _) => add_edge_to_sink(planner, nodes, from, OutputName::Rejected, &sink, pointer),
            (None, Some((reader, _))) => nodes[from].rejected = RejectedPolicy::Sink(nodes[reader].id.to_owned()),
            (Some(RejectedPolicy::Fail | RejectedPolicy::Drop), Some((_, reader_pointer))) => {
                let message = format!("nothing ever flows here: `rejected` of `{}` sends rows elsewhere", nodes[from].id);
                planner.report.value(&reader_pointer, message, Some("leave `rejected` out there, or name the sink under it".into()));
            }
            (_, None) => {}
        }
    }
}

fn reader_of_rejected(nodes: &[DraftNode<'_>], from: usize) -> Option<(usize, String)> {
    nodes.iter().enumerate().find_map(|(number, node)| {
        let edges = node.inputs.iter().flatten();
        let edge = edges.into_iter().find(|edge| edge.from == from && edge.output == OutputName::Rejected)?;
        Some((number, edge.pointer.clone()))
    })
}

/// Adds an edge to the sink of this id, unless it reads the stream already.
pub(super) fn add_edge_to_sink(
    planner: &mut Planner<'_, '_>,
    nodes: &mut [DraftNode<'_>],
    from: usize,
    output: OutputName,
    sink: &str,
    pointer: String,
) {
    let Some(to) = nodes.iter().position(|node| node.id == sink && node.is_sink()) else {
        let sinks = nodes.iter().filter(|node| node.is_sink()).map(|node| node.id);
        let policies: &[&str] = if output == OutputName::Late { &["drop"] } else { &["fail", "drop"] };
        let help = suggest::help("choices", sink, policies.iter().copied().chain(sinks));
        planner.report.value(&pointer, format!("unknown sink `{sink}`"), Some(help));
        return;
    };
    if let Some(inputs) = &mut nodes[to].inputs
        && !inputs.iter().any(|edge| edge.from == from && edge.output == output)
    {
        inputs.push(DraftEdge { from, output, port: 0, pointer });
    }
}

/// Orders the nodes so that every edge goes forward (Kahn's algorithm, in the order of the file among those that are ready). Nodes of a
/// cycle are reported and come last, without inputs.
fn in_order<'a>(planner: &mut Planner<'_, '_>, nodes: Vec<DraftNode<'a>>) -> Vec<DraftNode<'a>> {
    let mut order: Vec<usize> = Vec::with_capacity(nodes.len());
    let mut placed = vec![false; nodes.len()];
    let is_ready = |number: usize, placed: &[bool]| nodes[number].inputs.iter().flatten().all(|edge| placed[edge.from]);
    loop {
        let next = (0..nodes.len()).find(|&number| !placed[number] && !nodes[number].is_sink() && is_ready(number, &placed));
        let Some(next) = next else { break };
        placed[next] = true;
        order.push(next);
    }
    let stuck: Vec<usize> = (0..nodes.len()).filter(|&number| !placed[number] && !nodes[number].is_sink()).collect();
    report_cycle(planner, &nodes, &stuck, &placed);
    order.extend(&stuck);
    order.extend((0..nodes.len()).filter(|&number| nodes[number].is_sink()));

    let mut new_number = vec![0; nodes.len()];
    order.iter().enumerate().for_each(|(new, &old)| new_number[old] = new);
    let mut slots: Vec<Option<DraftNode<'a>>> = nodes.into_iter().map(Some).collect();
    let ordered = order.iter().filter_map(|&old| {
        let mut node = slots[old].take()?;
        node.inputs.iter_mut().flatten().for_each(|edge| edge.from = new_number[edge.from]);
        if stuck.contains(&old) {
            node.inputs = None;
        }
        Some(node)
    });
    ordered.collect()
}

/// Follows inputs backwards from a stuck node until one comes again: that is a cycle.
fn report_cycle(planner: &mut Planner<'_, '_>, nodes: &[DraftNode<'_>], stuck: &[usize], placed: &[bool]) {
    let Some(&start) = stuck.first() else { return };
    let mut path = vec![start];
    loop {
        let here = path[path.len() - 1];
        let Some(back) = nodes[here].inputs.iter().flatten().find(|edge| !placed[edge.from]) else { return };
        if let Some(first) = path.iter().position(|&seen| seen == back.from) {
            let mut cycle: Vec<&str> = path[first..].iter().rev().map(|&number| nodes[number].id).collect();
            cycle.push(cycle[0]);
            let help = "a stream cannot flow back to where it came from".to_owned();
            planner.report.value(&back.pointer, format!("cycle: {}", cycle.join(" → ")), Some(help));
            return;
        }
        path.push(back.from);
    }
}
