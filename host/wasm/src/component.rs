//! A loaded component: inspected, compiled, its imports linked. Instances are made from it in microseconds.

use crate::{aggregate::AggregateInstance, error::Error, guest::InstanceContext, inspect::Inspection, operator::OperatorInstance};

/// SHA-256 of a component's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

/// A loaded component. Cheap to clone.
#[derive(Clone)]
pub struct Component {}

impl Component {
    /// SHA-256 of its bytes.
    pub fn digest(&self) -> Digest {
        todo!()
    }

    /// What it is, without running it.
    pub fn inspection(&self) -> &Inspection {
        todo!()
    }

    /// A new instance of a stream operator.
    ///
    /// # Errors
    /// It is no stream operator, or its start function fails.
    pub async fn operator(&self, _context: InstanceContext) -> Result<OperatorInstance, Error> {
        todo!()
    }

    /// A new instance of an aggregate.
    ///
    /// # Errors
    /// It is no aggregate, or its start function fails.
    pub async fn aggregate(&self, _context: InstanceContext) -> Result<AggregateInstance, Error> {
        todo!()
    }
}
