//! What a component is, read from its bytes without running it.

/// The facts of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Which worlds of the contract it implements.
    pub worlds: Vec<World>,
    /// The interfaces and functions it imports, with versions, in its order.
    pub imports: Vec<String>,
    /// The interfaces and functions it exports, with versions, in its order.
    pub exports: Vec<String>,
    /// Size of the whole, in bytes.
    pub size_bytes: u64,
    /// Size of each core module in it, in bytes, in order.
    pub module_bytes: Vec<u64>,
    /// Its name, if its toolchain wrote one.
    pub name: Option<String>,
    /// Its version, if its toolchain wrote one.
    pub version: Option<String>,
    /// The languages and tools that made it, as `language Rust` or `processed-by rustc 1.95`.
    pub producers: Vec<String>,
}

/// A world of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum World {
    /// `stream-operator`.
    StreamOperator,
    /// `migrating-operator`.
    MigratingOperator,
    /// `window-aggregate`.
    WindowAggregate,
    /// `migrating-window-aggregate`.
    MigratingWindowAggregate,
}
