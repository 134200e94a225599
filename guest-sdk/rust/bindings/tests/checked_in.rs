//! The bindings in `guest-sdk/rust/src/bindings` are what the contract in `wit/` generates.

use std::{env, fs, path::Path};

#[test]
fn checked_in_bindings_are_those_of_the_contract() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract = fs::read_to_string(root.join("../../../wit/operator.wit")).unwrap();
    for module in millstream_bindings::generate(&contract).unwrap() {
        let path = root.join("../src/bindings").join(format!("{}.rs", module.name));
        if env::var_os("UPDATE_BINDINGS").is_some() {
            fs::write(&path, &module.text).unwrap();
        }
        let checked_in = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            checked_in == module.text,
            "{} is out of date: run UPDATE_BINDINGS=1 cargo test --manifest-path guest-sdk/rust/bindings/Cargo.toml",
            path.display()
        );
    }
}
