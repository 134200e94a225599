//! Makes the subtasks of a job from its plan: opens operators and sinks, lists splits, connects chains by queues.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_model::{
    ids::{OperatorId, SubtaskIndex},
    key::KeyGroup,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    RunSettings,
    aligner::Aligner,
    assign::Assignment,
    chain::{Chain, Link, Role},
    decision::Part,
    drift::Drift,
    entry::Entry,
    exchange::{EdgeId, Edges},
    gather::Gathering,
    order::{EventTimeOrder, OrderSettings},
    outlet::{Outlet, Router, Target},
    queue::{Inbox, Sender},
    restore::{RestoredJob, RestoredNode},
    sink::SinkLink,
    snapshot::SnapshotSettings,
    source::{DriftSlot, SourceDriver},
    splits::Splits,
    subtask::{Command, Commanded, Event, Feed, QueueDriver, Subtask, SubtaskNumber},
    versions::Running,
};
use crate::{
    checkpoint::manifest::SplitManifest,
    connector::{SinkContext, Split},
    graph::{self, Edge, Exchange, JobPlan, Node, NodeIndex, NodeKind, OperatorNode, RowOrder, chains, stays_in_subtask},
    metrics::OperatorMetrics,
    operator::{Operator, OperatorContext, OperatorError, StateContext},
};

/// Commands that wait for a subtask.
const COMMANDS_WAITING: usize = 16;

/// Counters by node and subtask.
pub(super) type Board = Vec<Vec<Arc<OperatorMetrics>>>;

/// Zeroed counters for every node and subtask of `plan`.
pub(super) fn board(plan: &JobPlan) -> Board {
    plan.nodes.iter().map(|node| OperatorMetrics::of_subtasks(node.parallelism)).collect()
}

/// A job that is ready to run.
pub(super) struct Built {
    pub(super) subtasks: Vec<BuiltSubtask>,
    /// Sources whose splits are looked for again and again.
    pub(super) discoveries: Vec<Discovery>,
    /// What the operators of each node were created with.
    pub(super) contexts: HashMap<NodeIndex, Vec<OperatorContext>>,
}

/// A subtask, and what the supervisor must know of it.
pub(super) struct BuiltSubtask {
    pub(super) subtask: Subtask,
    pub(super) nodes: Vec<NodeIndex>,
    pub(super) index: SubtaskIndex,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) is_source: bool,
    /// It is a source without anything to read.
    pub(super) reads_nothing: bool,
}

/// A source whose splits are looked for again and again.
pub(super) struct Discovery {
    pub(super) node: NodeIndex,
    pub(super) assignment: Assignment,
    pub(super) readers: Vec<mpsc::Sender<Command>>,
}

/// A failure to build, and the node it is about.
pub(super) type BuildError = (OperatorId, OperatorError);

/// What one attempt to run a job is built from.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) plan: &'a Arc<JobPlan>,
    pub(super) settings: &'a RunSettings,
    pub(super) board: &'a Board,
    /// What it goes on from.
    pub(super) restored: &'a RestoredJob,
    /// The directory of this attempt alone; none: the run is ephemeral.
    pub(super) directory: Option<&'a Path>,
    /// What the sinks take part in that are committed with the checkpoints; none: there are none, or it is ephemeral.
    pub(super) transaction: Option<&'a Part>,
    /// Which versions run and ran.
    pub(super) running: &'a Running,
}

struct Builder<'a> {
    plan: &'a Arc<JobPlan>,
    settings: &'a RunSettings,
    board: &'a Board,
    restored: &'a RestoredJob,
    directory: Option<&'a Path>,
    transaction: Option<&'a Part>,
    edges: Box<dyn Edges>,
    drift: Arc<Drift>,
    drift_slots: usize,
    built: Built,
}

/// Builds all subtasks of an attempt.
pub(super) async fn build(
    attempt: Attempt<'_>,
    events: mpsc::Sender<(SubtaskNumber, Event)>,
    stop: &CancellationToken,
    publish: &CancellationToken,
) -> Result<Built, BuildError> {
    let Attempt { plan, settings, board, restored, directory, transaction, .. } = attempt;
    let timed_sources = plan.nodes.iter().filter(|node| matches!(&node.kind, NodeKind::Source(source) if source.event_time.is_some()));
    let drift = Arc::new(Drift::new(timed_sources.map(|node| node.parallelism as usize).sum()));
    let built = Built { subtasks: Vec::new(), discoveries: Vec::new(), contexts: HashMap::new() };
    let edges = settings.exchange.open(&plan.job);
    let mut builder = Builder { plan, settings, board, restored, directory, transaction, edges, drift, drift_slots: 0, built };
    let chains = chains(plan);
    let mut inboxes: Vec<Vec<Inbox>> = chains.iter().map(|chain| builder.connect(chain)).collect();
    for (chain, inboxes) in chains.iter().zip(&mut inboxes) {
        let mut splits = builder.splits(chain).await?;
        for (index, inbox) in inboxes.drain(..).enumerate() {
            let index = SubtaskIndex(index as u32);
            let links = builder.links(chain, index, &inbox).await?;
            let feed = builder.feed(chain, index, inbox, &mut splits);
            let (commands, commanded) = mpsc::channel(COMMANDS_WAITING);
            let subtask = Subtask {
                chain: Chain::new(links, settings.clock.clone(), builder.snapshots(index)),
                feed,
                commands: commanded,
                commanded: Commanded { number: builder.built.subtasks.len(), events: events.clone() },
                stop: stop.clone(),
                publish: publish.clone(),
            };
            let is_source = matches!(subtask.feed, Feed::Source(_));
            let reads_nothing = matches!(&subtask.feed, Feed::Source(driver) if driver.reads_nothing());
            builder.built.subtasks.push(BuiltSubtask { subtask, nodes: chain.nodes.clone(), index, commands, is_source, reads_nothing });
        }
        builder.discover(chain, splits);
    }
    Ok(builder.built)
}

/// The splits of a source chain, per subtask.
struct SourceSplits {
    assignment: Assignment,
    assigned: Vec<Vec<Split>>,
    /// Those that an earlier run has read in part.
    restored: Vec<Vec<SplitManifest>>,
}

impl Builder<'_> {
    fn node(&self, index: NodeIndex) -> &Node {
        &self.plan.nodes[index]
    }

    /// The queues into the subtasks of a chain.
    fn connect(&mut self, chain: &graph::Chain) -> Vec<Inbox> {
        let head = chain.head();
        let consumers = 0..chain.parallelism;
        consumers.map(|consumer| self.connect_subtask(head, consumer)).collect()
    }

    fn connect_subtask(&mut self, head: NodeIndex, consumer: u32) -> Inbox {
        let edges = self.edges_into(head, consumer);
        self.edges.receive(&edges, self.plan.batching.edge_bytes)
    }

    fn edges_into(&self, head: NodeIndex, consumer: u32) -> Vec<EdgeId> {
        let mut edges = Vec::new();
        for (input, edge) in self.node(head).inputs.iter().enumerate() {
            let producers =
                if stays_in_subtask(self.plan, edge, head) { consumer..consumer + 1 } else { 0..self.node(edge.from).parallelism };
            edges.extend(producers.map(|producer| EdgeId { to: head, input, producer, consumer }));
        }
        edges
    }

    /// By edge of an inbox, the node that it comes from.
    fn producers(&self, head: NodeIndex, consumer: u32) -> Vec<NodeIndex> {
        self.edges_into(head, consumer).iter().map(|edge| self.node(head).inputs[edge.input].from).collect()
    }

    async fn links(&mut self, chain: &graph::Chain, index: SubtaskIndex, inbox: &Inbox) -> Result<Vec<Link>, BuildError> {
        let mut links = Vec::with_capacity(chain.nodes.len());
        for &node in &chain.nodes {
            links.push(self.link(chain, node, index, inbox).await?);
        }
        Ok(links)
    }

    async fn link(&mut self, chain: &graph::Chain, node: NodeIndex, index: SubtaskIndex, inbox: &Inbox) -> Result<Link, BuildError> {
        let planned = &self.plan.nodes[node];
        let role = self.role(node, index).await.map_err(|error| (planned.id.clone(), error))?;
        let inputs: Vec<usize> = if node == chain.head() {
            (0..inbox.edges()).map(|edge| inbox.port(edge)).collect()
        } else {
            (0..planned.inputs.len()).collect()
        };
        let order = match (&planned.kind, &role) {
            (NodeKind::Operator(operator), Role::Operator(created)) => {
                self.order(node, operator, created.as_ref(), index).map_err(|error| (planned.id.clone(), error))?
            }
            _ => None,
        };
        let restored = self.restored.node(node);
        let floor = restored.and_then(|restored| restored.watermark(index, planned.parallelism));
        Ok(Link {
            node,
            id: planned.id.clone(),
            role,
            aligner: Aligner::new(inputs.len()).with_floor(floor),
            entries: inputs.into_iter().map(|input| Entry::of(input, &planned.inputs[input])).collect(),
            outlets: self.outlets(chain, node, index),
            rejected: planned.rejected.clone(),
            metrics: self.board[node][index.0 as usize].clone(),
            tap: self.settings.taps.of(&planned.id),
            sent: restored.and_then(|restored| restored.sent(index, planned.parallelism)),
            order,
            cuts_at_watermarks: watermarks_matter(self.plan, node),
        })
    }

    async fn role(&mut self, node: NodeIndex, index: SubtaskIndex) -> Result<Role, OperatorError> {
        let planned = &self.plan.nodes[node];
        match &planned.kind {
            NodeKind::Source(_) => Ok(Role::Source),
            NodeKind::Operator(operator) => {
                let context = self.context(node, index);
                // What it goes on from is for this instance alone; a later version takes its store over.
                self.built.contexts.entry(node).or_default().push(OperatorContext { restored: None, ..context.clone() });
                let mut created = operator.plan.create(context.clone()).await?;
                check_takes_state(created.as_mut(), &context)?;
                Ok(Role::Operator(created))
            }
            NodeKind::Sink(sink) => {
                let context = SinkContext {
                    job: self.plan.job.clone(),
                    subtask: index,
                    parallelism: planned.parallelism,
                    is_durable: self.directory.is_some(),
                    restored: self.restored.staged(node),
                    transaction: self.transaction.cloned(),
                };
                Ok(Role::Sink(SinkLink::new(sink.writer(context).await?, self.settings.sink_flush_interval)))
            }
        }
    }

    fn context(&self, node: NodeIndex, index: SubtaskIndex) -> OperatorContext {
        let planned = self.node(node);
        // Memory is shared among those that keep something.
        let instances = |node: &Node| match &node.kind {
            NodeKind::Operator(operator) if operator.keys.is_some() || operator.plan.keeps_state() => node.parallelism as usize,
            _ => 0,
        };
        let stateful: usize = self.plan.nodes.iter().map(instances).sum();
        let state = self.settings.state.as_ref();
        OperatorContext {
            log: OperatorContext::guest_log(&self.plan.tenant, &self.plan.job, &planned.id, index),
            tenant: self.plan.tenant.clone(),
            job: self.plan.job.clone(),
            operator: planned.id.clone(),
            subtask: index,
            parallelism: planned.parallelism,
            key_groups: KeyGroup::owned_by(index, planned.parallelism),
            state: StateContext {
                directory: state.map(|state| self.state_directory(&state.path).join(format!("{node}-{}", index.0))),
                shared: state.map(|state| state.shared.clone()),
                memory_budget_bytes: self.plan.state_memory_bytes / stateful.max(1),
            },
            metrics: self.board[node][index.0 as usize].clone(),
            clock: self.settings.clock.clone(),
            restored: self.restored.operator(node, index, planned.parallelism),
        }
    }

    /// Where the state of this attempt goes; an ephemeral run has a directory of its own.
    fn state_directory(&self, ephemeral: &Path) -> PathBuf {
        self.directory.map_or_else(|| ephemeral.to_owned(), |attempt| attempt.join("state"))
    }

    fn snapshots(&self, subtask: SubtaskIndex) -> Option<SnapshotSettings> {
        let directory = self.directory?.join("snapshots");
        Some(SnapshotSettings { directory, subtask, file_work: self.settings.durable.as_ref()?.file_work })
    }

    fn order(
        &self,
        node: NodeIndex,
        operator: &OperatorNode,
        created: &dyn Operator,
        index: SubtaskIndex,
    ) -> Result<Option<EventTimeOrder>, OperatorError> {
        let restored = self.restored.node(node);
        if operator.order != RowOrder::EventTime {
            return match restored.filter(|restored| restored.holds_rows()) {
                Some(_) => Err(OperatorError::user(
                    "the checkpoint holds rows in event-time order, for which the operator no longer asks: leave `order: event-time` as it was",
                )),
                None => Ok(None),
            };
        }
        let keys = operator.keys.clone().unwrap_or_else(|| vec![Vec::new(); operator.inputs.len()]);
        let settings = OrderSettings { keys, with_timers: created.fires_event_timers(), batch_rows: self.plan.batching.rows };
        let mut order = EventTimeOrder::new(settings);
        if let Some(restored) = restored {
            let parallelism = self.node(node).parallelism;
            order.restore(restored.watermark(index, parallelism), restored.held(operator, index, parallelism)?);
        }
        Ok(Some(order))
    }

    fn outlets(&mut self, chain: &graph::Chain, node: NodeIndex, index: SubtaskIndex) -> Vec<Outlet> {
        let plan = self.plan.clone();
        let mut outlets = Vec::new();
        for (to, consumer) in plan.nodes.iter().enumerate() {
            for (input, edge) in consumer.inputs.iter().enumerate().filter(|(_, edge)| edge.from == node) {
                let local = chain.nodes.iter().position(|&member| member == to);
                let target = match local {
                    Some(link) => Target::Local { link, slot: input },
                    None => Target::Remote(self.router(edge, to, input, index)),
                };
                outlets.push(Outlet { port: edge.output, columns: edge.columns.clone(), target, to });
            }
        }
        outlets
    }

    fn router(&mut self, edge: &Edge, to: NodeIndex, input: usize, producer: SubtaskIndex) -> Router {
        let mut sender = |consumer: u32| self.edges.send(EdgeId { to, input, producer: producer.0, consumer });
        if stays_in_subtask(self.plan, edge, to) {
            return Router::One(sender(producer.0));
        }
        let senders: Vec<Sender> = (0..self.plan.nodes[to].parallelism).map(&mut sender).collect();
        match &edge.exchange {
            Exchange::Hash { keys, .. } => Router::Hash { keys: keys.clone(), senders },
            Exchange::Broadcast => Router::Broadcast(senders),
            Exchange::Forward | Exchange::Rebalance => Router::Rebalance { next: producer.0 as usize % senders.len(), senders },
        }
    }

    async fn splits(&mut self, chain: &graph::Chain) -> Result<Option<SourceSplits>, BuildError> {
        let node = self.node(chain.head());
        let NodeKind::Source(source) = &node.kind else { return Ok(None) };
        let mut assignment = Assignment::new(self.settings.assigner.clone(), node.id.clone(), chain.parallelism);
        let restored = self.restored.node(chain.head()).map(RestoredNode::splits);
        // What a source lists once is what it had listed: at another parallelism it might cut its input elsewhere.
        let found = match &restored {
            None => source.source.splits(chain.parallelism).await,
            Some(_) if source.source.discovery_interval().is_some() => source.source.more_splits(chain.parallelism).await,
            Some(_) => Ok(Vec::new()),
        };
        let found = found.map_err(|error| (node.id.clone(), error))?;
        let restored = assignment.restore(restored.unwrap_or_else(|| vec![Vec::new(); chain.parallelism as usize]));
        let assigned = assignment.assign(found);
        Ok(Some(SourceSplits { assignment, assigned, restored }))
    }

    fn feed(&mut self, chain: &graph::Chain, index: SubtaskIndex, inbox: Inbox, splits: &mut Option<SourceSplits>) -> Feed {
        let node = chain.head();
        let NodeKind::Source(source) = &self.plan.nodes[node].kind else {
            let clock = self.settings.clock.clone();
            return Feed::Queues(QueueDriver {
                producers: self.producers(node, index.0),
                inbox,
                gathering: Gathering::new(self.plan.batching),
                last_ms: clock.monotonic_ms(),
                clock,
                metrics: self.board[node][index.0 as usize].clone(),
            });
        };
        let timed = source.event_time.is_some();
        let mut own = Splits::new(source.source.is_bounded(), timed, self.settings.clock.monotonic_ms());
        if let Some(splits) = splits {
            let floor = self.restored.node(node).and_then(|restored| restored.watermark(index, chain.parallelism));
            own.restore(std::mem::take(&mut splits.restored[index.0 as usize]), floor);
            std::mem::take(&mut splits.assigned[index.0 as usize]).into_iter().for_each(|split| own.add(split));
        }
        Feed::Source(Box::new(SourceDriver {
            plan: self.plan.clone(),
            node,
            splits: own,
            discovers: source.source.discovery_interval().is_some(),
            cuts_at_watermarks: watermarks_matter(self.plan, node),
            clock: self.settings.clock.clone(),
            metrics: self.board[node][index.0 as usize].clone(),
            drift: timed.then(|| self.drift_slot()),
        }))
    }

    fn drift_slot(&mut self) -> DriftSlot {
        self.drift_slots += 1;
        DriftSlot { drift: self.drift.clone(), slot: self.drift_slots - 1, moved: self.drift.watch() }
    }

    fn discover(&mut self, chain: &graph::Chain, splits: Option<SourceSplits>) {
        let node = chain.head();
        if let (NodeKind::Source(source), Some(SourceSplits { assignment, .. })) = (&self.plan.nodes[node].kind, splits)
            && source.source.discovery_interval().is_some()
        {
            let own = self.built.subtasks.iter().filter(|subtask| subtask.nodes[0] == node);
            let readers = own.map(|subtask| subtask.commands.clone()).collect();
            self.built.discoveries.push(Discovery { node, assignment, readers });
        }
    }
}

/// State that the checkpoint holds has somebody to go to.
fn check_takes_state(created: &mut dyn Operator, context: &OperatorContext) -> Result<(), OperatorError> {
    let id = &context.operator;
    let holds_state =
        context.restored.as_ref().is_some_and(|restored| !restored.state.is_empty() && !restored.may_drop.contains(id.as_str()));
    let mut has_store = false;
    created.with_store(&mut |_| has_store = true);
    if holds_state && !has_store {
        return Err(OperatorError::user(format!(
            "the checkpoint holds state of `{id}`, which no longer keeps any: allow it to be forgotten as `{id}`"
        )));
    }
    Ok(())
}

/// Whether something downstream of `node` depends on where watermarks stand between its rows.
fn watermarks_matter(plan: &JobPlan, node: NodeIndex) -> bool {
    let mut reached = vec![false; plan.nodes.len()];
    reached[node] = true;
    for (index, consumer) in plan.nodes.iter().enumerate().skip(node + 1) {
        reached[index] = consumer.inputs.iter().any(|edge| reached[edge.from]);
        if let NodeKind::Operator(operator) = &consumer.kind
            && reached[index]
            && (operator.order == RowOrder::EventTime || operator.plan.uses_watermarks())
        {
            return true;
        }
    }
    false
}
