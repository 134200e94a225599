//! Which columns are read at all: from the sinks back to the sources. Columns go by name, since numbers change when others disappear.

use std::collections::{BTreeSet, HashMap};

use arrow_schema::Schema;

use super::typed::{Typed, TypedKind};
use crate::operator::OutputPort;

/// The columns that are read of each edge and of each output, in the order of the whole output.
#[derive(Debug, Default)]
pub(super) struct Needs {
    edges: HashMap<(usize, usize, OutputPort), Vec<String>>,
    outputs: HashMap<(usize, OutputPort), Vec<String>>,
}

impl Needs {
    /// What crosses from an output of `from` to `to`.
    pub(super) fn of_edge(&self, to: usize, from: usize, output: OutputPort) -> &[String] {
        self.edges.get(&(to, from, output)).map_or(&[], Vec::as_slice)
    }

    /// What all readers of an output read together.
    pub(super) fn of_output(&self, node: usize, output: OutputPort) -> &[String] {
        self.outputs.get(&(node, output)).map_or(&[], Vec::as_slice)
    }
}

/// What is needed by nodes that were planned with all columns. `wants_everything`: nodes that get every column whatever they say; `also`: what nodes get
/// besides, per input port.
pub(super) fn needs(nodes: &[Option<Typed>], wants_everything: &[bool], also: &[Option<&[BTreeSet<String>]>]) -> Needs {
    let mut needs = Needs::default();
    for (number, node) in nodes.iter().enumerate().rev() {
        let Some(node) = node else { continue };
        for edge in &node.inputs {
            let mut names = if wants_everything[number] { None } else { needed_of_port(node, number, edge.port, &needs) };
            if let (Some(names), Some(more)) = (&mut names, also[number].and_then(|ports| ports.get(edge.port))) {
                names.extend(more.iter().cloned());
            }
            let ordered = in_schema_order(&edge.stream.schema, names.as_ref());
            let together: BTreeSet<String> = needs.of_output(edge.from, edge.output).iter().chain(&ordered).cloned().collect();
            needs.outputs.insert((edge.from, edge.output), in_schema_order(&edge.stream.schema, Some(&together)));
            let key = (number, edge.from, edge.output);
            // A stream may feed two ports of one node: then both get what either needs.
            let both: BTreeSet<String> = needs.edges.get(&key).into_iter().flatten().chain(&ordered).cloned().collect();
            needs.edges.insert(key, in_schema_order(&edge.stream.schema, Some(&both)));
        }
    }
    needs
}

/// The columns that a node needs of an input port: those that it reads, its key, and those that it passes on to who needs them. None: all.
fn needed_of_port(node: &Typed, number: usize, port: usize, needs: &Needs) -> Option<BTreeSet<String>> {
    let TypedKind::Operator { node: operator, .. } = &node.kind else { return None };
    let schema = &operator.inputs[port].schema;
    let name = |&column: &usize| schema.field(column).name().clone();
    let mut needed: BTreeSet<String> = operator.plan.reads(port)?.iter().map(name).collect();
    needed.extend(operator.keys.iter().flat_map(|keys| &keys[port]).map(name));
    for output in 0..operator.plan.outputs().len() {
        if operator.plan.keeps(output) == Some(port) {
            needed.extend(kept(schema, needs.of_output(number, OutputPort::Port(output))));
        }
    }
    if port == 0 {
        needed.extend(kept(schema, needs.of_output(number, OutputPort::Late)));
    }
    Some(needed)
}

/// A needed column that the input has too is taken for a kept one, though the operator may replace it.
fn kept<'a>(input: &'a Schema, needed: &'a [String]) -> impl Iterator<Item = String> + 'a {
    needed.iter().filter(|name| input.index_of(name).is_ok()).cloned()
}

fn in_schema_order(schema: &Schema, names: Option<&BTreeSet<String>>) -> Vec<String> {
    let all = schema.fields().iter().map(|field| field.name());
    all.filter(|name| names.is_none_or(|names| names.contains(*name))).cloned().collect()
}
