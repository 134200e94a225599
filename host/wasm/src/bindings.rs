//! The contract in Rust: generated from `wit/`. What goes to a guest borrows, what comes from it is owned.
//!
//! One world names everything that any guest may export, so that types are generated once; which exports a component must have is
//! decided when an instance is made.

#![allow(clippy::all, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package millstream:host;
        world guest {
            import millstream:operator/log@0.1.0;
            import millstream:operator/metrics@0.1.0;
            import millstream:operator/collections@0.1.0;
            import millstream:operator/http@0.1.0;
            export millstream:operator/operator@0.1.0;
            export millstream:operator/aggregate@0.1.0;
            export millstream:operator/migration@0.1.0;
        }
    ",
    world: "millstream:host/guest",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { "millstream:operator/http": async | trappable, default: trappable },
    exports: { default: async },
});
