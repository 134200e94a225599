//! Nothing but a place for the features of shared dependencies; see Cargo.toml.
