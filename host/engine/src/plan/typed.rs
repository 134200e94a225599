//! Every node planned with the types of its inputs, in topological order. Runs twice: with all columns, then with those that are read.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use millstream_model::{StreamType, key::check_key_type, types::type_text};

use super::{
    draft::{Draft, DraftEdge, DraftKind, DraftNode, OutputName, add_edge_to_sink},
    needs::Needs,
    sources::{self, PlannedSource},
};
use crate::{
    connector::{ConnectorRequest, Connectors, SettingsProblem, Sink},
    graph::{NullKeys, OperatorNode, RowOrder, SourceNode},
    operator::OutputPort,
    operators::{AnyOperatorSpec, Environment, LatePolicy, OperatorSpec as _, Place, PlanRequest, Planned, Ports, Problem, component},
    rejected,
    requests::Grant,
    spec::{Entry, Inputs, KeyBy, OperatorEntry, Report, SinkEntry, child, suggest},
};

/// What planning may use, and where it reports mistakes.
pub(super) struct Planner<'a, 'd> {
    pub(super) connectors: &'a Connectors,
    pub(super) environment: &'a Environment<'a>,
    /// Where sources and sinks keep what must survive the run.
    pub(super) state_directory: Option<&'a Path>,
    pub(super) report: &'a mut Report<'d>,
}

/// A planned node.
pub(super) struct Typed {
    pub(super) kind: TypedKind,
    pub(super) inputs: Vec<TypedEdge>,
}

pub(super) enum TypedKind {
    Source(Box<TypedSource>),
    Operator { node: OperatorNode, null_keys: NullKeys, late: Option<LatePolicy> },
    Sink(Arc<dyn Sink>),
}

/// A source with all its columns, and the node that produces some of them.
pub(super) struct TypedSource {
    planned: PlannedSource,
    pub(super) node: SourceNode,
}

/// What the first pass found: what is needed, and the nodes with all columns.
#[derive(Clone, Copy)]
pub(super) struct FirstPass<'a> {
    pub(super) needs: &'a Needs,
    pub(super) nodes: &'a [Option<Typed>],
}

/// A stream into a port, with what crosses.
pub(super) struct TypedEdge {
    pub(super) from: usize,
    pub(super) output: OutputPort,
    pub(super) port: usize,
    /// The columns of the output that cross; none: all.
    pub(super) columns: Option<Vec<usize>>,
    pub(super) stream: StreamType,
    /// Where the job file asks for it.
    pub(super) pointer: String,
}

impl Typed {
    /// The type of one of its outputs.
    pub(super) fn output_type(&self, output: OutputPort) -> Option<StreamType> {
        match (&self.kind, output) {
            (TypedKind::Sink(_), _) => None,
            (_, OutputPort::Rejected) => Some(StreamType { schema: rejected::schema(), event_times: false, changes: false }),
            (TypedKind::Source(source), OutputPort::Port(0)) => Some(source.node.output.clone()),
            (TypedKind::Source(_), _) => None,
            (TypedKind::Operator { node, .. }, OutputPort::Port(port)) => node.plan.outputs().get(port).map(|(_, stream)| stream.clone()),
            (TypedKind::Operator { node, .. }, OutputPort::Late) => node.inputs.first().cloned(),
        }
    }
}

impl Planner<'_, '_> {
    /// Plans every node; none where a mistake (reported) stands in the way. After a first pass, with only the columns that are needed.
    pub(super) async fn plan_all(&mut self, draft: &mut Draft<'_>, first: Option<FirstPass<'_>>) -> Vec<Option<Typed>> {
        let mut typed: Vec<Option<Typed>> = Vec::with_capacity(draft.nodes.len());
        for number in 0..draft.nodes.len() {
            let node = self.plan_node(&draft.nodes[number], number, &typed, first).await;
            if let Some(Typed { kind: TypedKind::Operator { late: Some(LatePolicy::Sink(sink)), .. }, .. }) = &node {
                let at = late_pointer(self.report, draft.nodes[number].pointer);
                add_edge_to_sink(self, &mut draft.nodes, number, OutputName::Late, sink, at);
            }
            typed.push(node);
        }
        typed
    }

    async fn plan_node(
        &mut self,
        node: &DraftNode<'_>,
        number: usize,
        typed: &[Option<Typed>],
        first: Option<FirstPass<'_>>,
    ) -> Option<Typed> {
        let edges: Vec<Option<TypedEdge>> = node.inputs.as_ref()?.iter().map(|edge| self.typed_edge(edge, typed, first, number)).collect();
        let inputs: Vec<TypedEdge> = edges.into_iter().collect::<Option<_>>()?;
        // Sources and sinks are planned once; the second pass only narrows what sources produce.
        let before = first.and_then(|first| first.nodes[number].as_ref()).map(|node| &node.kind);
        let kind = match (&node.kind, before) {
            (DraftKind::Broken { .. }, _) => return None,
            (DraftKind::Source(_), Some(TypedKind::Source(source))) => {
                let node = source.planned.node(first.map(|first| first.needs.of_output(number, OutputPort::Port(0))));
                TypedKind::Source(Box::new(TypedSource { planned: source.planned.clone(), node }))
            }
            (DraftKind::Source(entry), _) => {
                let planned = sources::plan(self, entry)?;
                let node = planned.node(None);
                TypedKind::Source(Box::new(TypedSource { planned, node }))
            }
            (DraftKind::Sink(_), Some(TypedKind::Sink(sink))) => TypedKind::Sink(sink.clone()),
            (DraftKind::Operator { entry, spec }, _) => {
                let Some((spec, ports)) = spec else {
                    self.check_around(entry, &inputs);
                    return None;
                };
                self.plan_operator(entry, spec.as_ref(), ports, &inputs).await?
            }
            // An operator that could not be planned may have named this sink.
            (DraftKind::Sink(_), _) if inputs.is_empty() && typed.iter().any(Option::is_none) => return None,
            (DraftKind::Sink(entry), _) => self.plan_sink(entry, &inputs)?,
        };
        Some(Typed { kind, inputs })
    }

    /// None if the producer could not be planned, or has no such output (reported), or is not what it was in the first pass.
    fn typed_edge(&mut self, edge: &DraftEdge, typed: &[Option<Typed>], first: Option<FirstPass<'_>>, to: usize) -> Option<TypedEdge> {
        let producer = typed.get(edge.from)?.as_ref()?;
        let output = self.output_port(producer, edge)?;
        let whole = producer.output_type(output)?;
        let columns = match first {
            None => None,
            Some(first) => narrowed(&whole, first.needs.of_edge(to, edge.from, output), first.nodes[edge.from].as_ref()?, output)?,
        };
        let schema = match &columns {
            None => whole.schema,
            Some(columns) => Arc::new(whole.schema.project(columns).expect("the columns were found by name")),
        };
        let stream = StreamType { schema, ..whole };
        Some(TypedEdge { from: edge.from, output, port: edge.port, columns, stream, pointer: edge.pointer.clone() })
    }

    fn output_port(&mut self, producer: &Typed, edge: &DraftEdge) -> Option<OutputPort> {
        let outputs: Vec<&str> = match &producer.kind {
            TypedKind::Operator { node, .. } => node.plan.outputs().iter().map(|(name, _)| name.as_str()).collect(),
            TypedKind::Source(_) | TypedKind::Sink(_) => Vec::new(),
        };
        match (&edge.output, &producer.kind) {
            (OutputName::First, TypedKind::Operator { .. }) if outputs.is_empty() => {
                self.report.value(&edge.pointer, "this operator has no output", None);
                None
            }
            (OutputName::First, _) => Some(OutputPort::Port(0)),
            (OutputName::Rejected, _) => Some(OutputPort::Rejected),
            (OutputName::Late, TypedKind::Operator { late: Some(_), .. }) => Some(OutputPort::Late),
            (OutputName::Late, _) => {
                let help = "windows and joins drop late rows; other operators receive them".to_owned();
                self.report.value(&edge.pointer, "nothing comes too late here, so there is no such stream", Some(help));
                None
            }
            (OutputName::Named(name), _) => {
                let port = outputs.iter().position(|output| output == name).map(OutputPort::Port);
                if port.is_none() {
                    let help = match producer.kind {
                        TypedKind::Source(_) => "a source is one stream, named by its id alone".to_owned(),
                        _ => suggest::help("outputs", name, outputs.iter().copied()),
                    };
                    self.report.value(&edge.pointer, format!("unknown output `{name}`"), Some(help));
                }
                port
            }
        }
    }

    async fn plan_operator(
        &mut self,
        entry: &Entry<OperatorEntry>,
        spec: &dyn AnyOperatorSpec,
        ports: &Ports,
        edges: &[TypedEdge],
    ) -> Option<TypedKind> {
        let inputs = self.port_types(edges, ports)?;
        let keys = self.keys(entry, ports, &inputs)?;
        let order = entry.common.order.unwrap_or_default();
        let settings_fit = self.check_keyed_settings(entry, keys.is_some(), order, &inputs) & self.check_http(entry);
        let id = entry.id.as_str().into();
        let request = PlanRequest {
            id: &id,
            inputs: &inputs,
            keys: keys.as_deref(),
            order,
            environment: self.environment,
            tables: self.connectors.tables.as_deref(),
            grant: self.grant(entry),
        };
        let Planned { plan, late } = match spec.plan(request).await {
            Ok(planned) => planned,
            Err(problems) => {
                self.report_operator(entry, &problems);
                return None;
            }
        };
        let mut takes_changes = true;
        for edge in edges.iter().filter(|edge| edge.stream.changes && !plan.accepts_changes(edge.port)) {
            self.report_changelog(edge, &format!("`{}`", entry.id));
            takes_changes = false;
        }
        if !settings_fit || !takes_changes || !self.check_outputs(entry, plan.outputs()) {
            return None;
        }
        let node = OperatorNode { plan, inputs, keys, order };
        Some(TypedKind::Operator { node, null_keys: entry.common.null_keys.unwrap_or_default(), late })
    }

    /// What can be said of an operator whose own part could not be read: whether its key and its order suit its inputs.
    fn check_around(&mut self, entry: &Entry<OperatorEntry>, edges: &[TypedEdge]) {
        let inputs: Vec<StreamType> = edges.iter().map(|edge| edge.stream.clone()).collect();
        let names: Option<Vec<String>> = match (&entry.common.inputs, &entry.common.key_by) {
            (Some(Inputs::ByPort(map)), _) => Some(map.keys().cloned().collect()),
            (_, Some(KeyBy::Columns(_)) | None) => Some(vec![String::new(); inputs.len()]),
            // Which of the streams in order goes to the port of this name, nobody knows.
            (_, Some(KeyBy::ByPort(_))) => None,
        };
        let keyed = match names {
            Some(names) => self.keys(entry, &Ports::Named(names), &inputs).is_none_or(|keys| keys.is_some()),
            None => true,
        };
        self.check_keyed_settings(entry, keyed, entry.common.order.unwrap_or_default(), &inputs);
    }

    /// The type of each port: of its stream, or what all of its streams have in common.
    fn port_types(&mut self, edges: &[TypedEdge], ports: &Ports) -> Option<Vec<StreamType>> {
        match ports {
            Ports::Named(_) => Some(edges.iter().map(|edge| edge.stream.clone()).collect()),
            Ports::Union => self.one_type(edges, true).map(|stream| vec![stream]),
        }
    }

    /// The one type of several streams. With `lenient`, a column may be nullable in some of them only.
    fn one_type(&mut self, edges: &[TypedEdge], lenient: bool) -> Option<StreamType> {
        let (first, rest) = edges.split_first()?;
        let mut merged = first.stream.clone();
        for edge in rest {
            match merge(&merged, &edge.stream, lenient) {
                Ok(both) => merged = both,
                Err(difference) => {
                    self.report.value(
                        &edge.pointer,
                        format!("not of one type with the first stream: {difference}"),
                        Some("`project` and `compute` can make it so".into()),
                    );
                    return None;
                }
            }
        }
        Some(merged)
    }

    /// The key columns of each port; `Some(None)`: not keyed.
    fn keys(&mut self, entry: &Entry<OperatorEntry>, ports: &Ports, inputs: &[StreamType]) -> Option<Option<Vec<Vec<usize>>>> {
        let Some(key_by) = &entry.common.key_by else { return Some(None) };
        let pointer = child(&entry.pointer, "key-by");
        let names: Vec<&str> = match ports {
            Ports::Named(names) => names.iter().map(String::as_str).collect(),
            Ports::Union => vec!["input"],
        };
        let mut keys = Vec::new();
        for (port, input) in inputs.iter().enumerate() {
            let (at, columns) = match key_by {
                KeyBy::Columns(columns) => (pointer.clone(), Some(columns)),
                KeyBy::ByPort(by_port) => (child(&pointer, names[port]), by_port.get(names[port])),
            };
            match columns {
                Some(columns) => keys.push(self.key_columns(&at, columns, input)),
                None => {
                    self.report.key(&pointer, format!("the key of input `{}` is missing", names[port]), None);
                    keys.push(None);
                }
            }
        }
        if let KeyBy::ByPort(by_port) = key_by {
            for name in by_port.keys().filter(|name| !names.contains(&name.as_str())) {
                let help = suggest::help("inputs", name, names.iter().copied());
                self.report.key(&child(&pointer, name), format!("unknown input `{name}`"), Some(help));
                keys.push(None);
            }
        }
        let keys: Vec<Vec<usize>> = keys.into_iter().collect::<Option<_>>()?;
        self.check_keys_agree(&pointer, &keys, inputs).then_some(Some(keys))
    }

    fn key_columns(&mut self, pointer: &str, columns: &[String], input: &StreamType) -> Option<Vec<usize>> {
        let mut found = Vec::new();
        for (index, name) in columns.iter().enumerate() {
            let at = child(pointer, &index.to_string());
            let Ok(column) = input.schema.index_of(name) else {
                let help = suggest::help("columns", name, suggest::column_names(&input.schema));
                self.report.value(&at, format!("unknown column `{name}`"), Some(help));
                continue;
            };
            match check_key_type(input.schema.field(column).data_type()) {
                Ok(()) => found.push(column),
                Err(error) => self.report.value(&at, error.to_string(), None),
            }
        }
        (found.len() == columns.len()).then_some(found)
    }

    /// Rows of all inputs meet by key, so the keys have the same types.
    fn check_keys_agree(&mut self, pointer: &str, keys: &[Vec<usize>], inputs: &[StreamType]) -> bool {
        let types = |port: usize| -> Vec<String> {
            keys[port].iter().map(|&column| type_text(inputs[port].schema.field(column).data_type())).collect()
        };
        let odd = (1..keys.len()).find(|&port| types(port) != types(0));
        if let Some(port) = odd {
            let (first, other) = (types(0).join(", "), types(port).join(", "));
            self.report.value(
                pointer,
                format!("keys of different types never meet: ({first}) and ({other})"),
                Some("`compute` with CAST can make them equal".into()),
            );
        }
        odd.is_none()
    }

    /// Whether `http` is granted to what can use it, within bounds.
    fn check_http(&mut self, entry: &Entry<OperatorEntry>) -> bool {
        let Some(http) = &entry.common.http else { return true };
        let pointer = child(&entry.pointer, "http");
        if entry.kind != component::Component::KEY {
            let message = format!("`http` is granted to components; `{}` sends no requests", entry.kind);
            self.report.key(&pointer, message, Some("leave it out".into()));
            return false;
        }
        let mistakes = http.mistakes();
        for (key, message) in &mistakes {
            self.report.value(&child(&pointer, key), message.clone(), None);
        }
        if self.connectors.requests.is_none() {
            self.report.key(&pointer, "nothing sends requests over HTTP here", None);
        }
        mistakes.is_empty() && self.connectors.requests.is_some()
    }

    fn grant(&self, entry: &Entry<OperatorEntry>) -> Option<Arc<Grant>> {
        let (settings, client) = entry.common.http.clone().zip(self.connectors.requests.clone())?;
        Some(Arc::new(Grant::new(settings, client)))
    }

    fn check_keyed_settings(&mut self, entry: &Entry<OperatorEntry>, keyed: bool, order: RowOrder, inputs: &[StreamType]) -> bool {
        let mut fits = true;
        if entry.common.null_keys.is_some() && !keyed {
            self.report.key(&child(&entry.pointer, "null-keys"), "there is no key without `key-by`", None);
            fits = false;
        }
        if order == RowOrder::EventTime {
            let at = child(&entry.pointer, "order");
            if !keyed {
                self.report.value(
                    &at,
                    "rows are ordered per key, so `order: event-time` needs `key-by`",
                    Some("`key-by: []` is one key for all rows".into()),
                );
                fits = false;
            }
            if inputs.iter().any(|input| !input.event_times) {
                self.report.value(&at, "`order: event-time` needs event times on every input", Some(NO_EVENT_TIME_HELP.into()));
                fits = false;
            }
        }
        fits
    }

    fn check_outputs(&mut self, entry: &Entry<OperatorEntry>, outputs: &[(String, StreamType)]) -> bool {
        let mut fits = true;
        for (name, stream) in outputs {
            if name == "rejected" || name == "late" {
                self.report.key(
                    &entry.pointer,
                    format!("the operator has an output `{name}`, which every operator has for other rows"),
                    None,
                );
                fits = false;
            }
            let mut seen = BTreeSet::new();
            if let Some(twice) = suggest::column_names(&stream.schema).find(|name| !seen.insert(name.to_owned())) {
                self.report.key(&entry.pointer, format!("two columns of the output `{name}` are named `{twice}`"), None);
                fits = false;
            }
        }
        fits
    }

    fn plan_sink(&mut self, entry: &Entry<SinkEntry>, edges: &[TypedEdge]) -> Option<TypedKind> {
        if edges.is_empty() {
            let help = "write `input: <stream>`, or name the sink under `rejected:` or `late:` of an operator";
            self.report.key(&entry.pointer, "nothing flows into this sink", Some(help.into()));
            return None;
        }
        let input = self.one_type(edges, false)?;
        let connector = self.connectors.sinks.get(entry.kind.as_str())?;
        let request = ConnectorRequest {
            id: &entry.id,
            settings: &entry.settings,
            base_directory: self.environment.base_directory.to_owned(),
            declared_schema: None,
            input: Some(input),
            clock: self.environment.clock.clone(),
            state_directory: self.state_directory.map(|directory| directory.join(&entry.id)),
        };
        let sink = match connector.plan(request) {
            Ok(sink) => sink,
            Err(problems) => {
                self.report_connector(&entry.pointer, &entry.kind, &problems);
                return None;
            }
        };
        let mut takes_changes = true;
        for edge in edges.iter().filter(|edge| edge.stream.changes && !sink.accepts_changes()) {
            self.report_changelog(edge, &format!("a `{}` sink", entry.kind));
            takes_changes = false;
        }
        takes_changes.then_some(TypedKind::Sink(sink))
    }

    fn report_changelog(&mut self, edge: &TypedEdge, taker: &str) {
        let message = format!("the stream carries updates and deletions, but {taker} takes only new rows");
        self.report.value(
            &edge.pointer,
            message,
            Some("early or late firing of a window makes updates; without it the stream has only new rows".into()),
        );
    }

    /// Reports sources and operators that nobody reads.
    pub(super) fn check_use(&mut self, draft: &Draft<'_>, typed: &[Option<Typed>]) {
        let read: BTreeSet<usize> = draft.nodes.iter().flat_map(|node| node.inputs.iter().flatten()).map(|edge| edge.from).collect();
        let all_resolved = draft.nodes.iter().all(|node| node.inputs.is_some());
        for (number, node) in draft.nodes.iter().enumerate() {
            if all_resolved && typed[number].is_some() && !node.is_sink() && !read.contains(&number) {
                let help = "name it as an input, or remove it; a `blackhole` sink takes rows and forgets them";
                self.report.key(node.pointer, format!("nothing reads `{}`", node.id), Some(help.into()));
            }
        }
    }

    pub(super) fn report_operator(&mut self, entry: &Entry<OperatorEntry>, problems: &[Problem]) {
        for Problem { place, message, help } in problems {
            let pointer = match place {
                Place::Settings(path) => self.report.document.resolve(&child(&entry.pointer, &entry.kind), path),
                Place::Entry(path) => self.report.document.resolve(&entry.pointer, path),
            };
            self.report.value(&pointer, message.clone(), help.clone());
        }
    }

    pub(super) fn report_connector(&mut self, entry: &str, kind: &str, problems: &[SettingsProblem]) {
        for SettingsProblem { path, message } in problems {
            let pointer = self.report.document.resolve(&child(entry, kind), path);
            self.report.value(&pointer, message.clone(), None);
        }
    }
}

/// What to do about a stream without event time.
pub(super) const NO_EVENT_TIME_HELP: &str = "give the source an `event-time`, or put `assign-watermarks` in front";

/// The columns of `stream` with these names; none: they are all. Fails if a column is not as it was in the first pass, as when a component
/// answers the same question in another way.
fn narrowed(stream: &StreamType, names: &[String], before: &Typed, output: OutputPort) -> Option<Option<Vec<usize>>> {
    let before = before.output_type(output)?;
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let (column, field) = stream.schema.column_with_name(name)?;
        let (_, field_before) = before.schema.column_with_name(name)?;
        if field != field_before || (stream.event_times, stream.changes) != (before.event_times, before.changes) {
            return None;
        }
        columns.push(column);
    }
    let is_whole = columns.len() == stream.schema.fields().len() && columns.is_sorted();
    Some((!is_whole).then_some(columns))
}

/// Where an operator says what becomes of its late rows.
fn late_pointer(report: &Report<'_>, entry: &str) -> String {
    let settings = report.document.value.pointer(entry).and_then(serde_json::Value::as_object);
    let with_late = settings.into_iter().flatten().find(|(_, settings)| settings.get("late").is_some());
    with_late.map_or_else(|| entry.to_owned(), |(key, _)| child(&child(entry, key), "late"))
}

/// The type that rows of both streams have, or in what they differ.
fn merge(one: &StreamType, other: &StreamType, lenient: bool) -> Result<StreamType, String> {
    let (ones, others) = (one.schema.fields(), other.schema.fields());
    if one.event_times != other.event_times {
        return Err("only one of them has event times".into());
    }
    let mut fields = Vec::new();
    for (one, other) in ones.iter().zip(others) {
        if one.name() != other.name() {
            return Err(format!("where one has the column `{}`, the other has `{}`", one.name(), other.name()));
        }
        if one.data_type() != other.data_type() {
            let (one_type, other_type) = (type_text(one.data_type()), type_text(other.data_type()));
            return Err(format!("the column `{}` has the type {one_type} in one and {other_type} in the other", one.name()));
        }
        if one.is_nullable() != other.is_nullable() && !lenient {
            return Err(format!("the column `{}` may be null in one of them only; the operator `union` takes both", one.name()));
        }
        fields.push(one.as_ref().clone().with_nullable(one.is_nullable() || other.is_nullable()));
    }
    if ones.len() != others.len() {
        return Err(format!("one has {} columns, the other {}", ones.len(), others.len()));
    }
    let schema = Arc::new(arrow_schema::Schema::new(fields));
    Ok(StreamType { schema, event_times: one.event_times, changes: one.changes || other.changes })
}
